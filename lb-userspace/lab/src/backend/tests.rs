use std::io::{Read, Write};

use super::*;

fn args(mode: Mode) -> Args {
    Args {
        listen: "127.0.0.1:0".parse().expect("an address"),
        name: "app".to_owned(),
        mode,
        broken: 1.0,
        seed: 7,
        probe_path: "/healthz".to_owned(),
    }
}

fn report(book: &Book) -> Report {
    serde_json::from_str(&book.obey("report")).expect("a report is JSON")
}

fn statuses(book: &Book, count: u32) -> Vec<u16> {
    let connection = book.accepted("10.0.0.1:1024".parse().expect("an address"));
    (0..count).map(|_| book.requested(connection)).collect()
}

#[test]
fn half_bad_fails_about_half_and_always_alike() {
    let first = statuses(&Book::new(Script::new(&args(Mode::HalfBad))), 1000);
    let again = statuses(&Book::new(Script::new(&args(Mode::HalfBad))), 1000);
    assert_eq!(first, again);
    let failed = first.iter().filter(|status| **status == 500).count();
    assert!((450..=550).contains(&failed), "{failed} of 1000 failed");
    assert!(first.windows(3).any(|three| three == [500; 3]));
}

#[test]
fn orders_change_what_is_answered() {
    let book = Book::new(Script::new(&args(Mode::Ok)));
    assert_eq!(statuses(&book, 3), [200; 3]);
    assert_eq!(book.obey("break"), "ok");
    assert_eq!(statuses(&book, 3), [500; 3]);
    assert_eq!(book.probed(0), 200);
    assert_eq!(book.obey("probe down"), "ok");
    assert_eq!(book.probed(0), 503);
    assert_eq!(book.obey("heal"), "ok");
    assert_eq!(statuses(&book, 3), [200; 3]);
    for wrong in ["fraction 2", "fraction", "break it", "report yesterday", "", "explode"] {
        assert!(book.obey(wrong).starts_with("error: "), "{wrong}");
    }
}

#[test]
fn the_book_separates_clients_from_probes_and_old_from_new() {
    let book = Book::new(Script::new(&args(Mode::Bad)));
    let probe = book.accepted("10.0.0.1:40000".parse().expect("an address"));
    book.probed(probe);
    statuses(&book, 2);
    let seen = report(&book);
    assert_eq!((seen.accepted, seen.requests, seen.probes), (2, 2, 1));
    assert_eq!(seen.failures.len(), 2);
    assert_eq!(seen.clients().map(|client| client.requests).collect::<Vec<_>>(), [2]);
    let later: Report =
        serde_json::from_str(&book.obey(&format!("report {}", seen.at_ns))).expect("a report is JSON");
    assert_eq!((later.connections.len(), later.failures.len(), later.accepted), (0, 0, 2));
}

#[tokio::test]
async fn it_serves_keep_alive_with_its_name() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
    let address = listener.local_addr().expect("a listener has an address");
    let book = Arc::new(Book::new(Script::new(&args(Mode::Bad))));
    let served = tokio::spawn(serve(listener, Arc::new(args(Mode::Bad)), Arc::clone(&book)));
    let answers = tokio::task::spawn_blocking(move || {
        let mut stream = std::net::TcpStream::connect(address).expect("it listens");
        let ask =
            "GET / HTTP/1.1\r\nhost: a\r\n\r\nGET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        stream.write_all(ask.as_bytes()).expect("it reads");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("it answers");
        text
    });
    let text = answers.await.expect("the client does not panic");
    served.abort();
    assert!(text.starts_with("HTTP/1.1 500 "), "{text}");
    assert!(text.contains("x-backend: app"), "{text}");
    assert!(text.contains("HTTP/1.1 200 OK"), "{text}");
    assert_eq!(report(&book).accepted, 1);
}
