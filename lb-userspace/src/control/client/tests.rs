use std::os::unix::net::UnixListener as StdListener;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixListener,
};

use super::*;

/// A socket that sends these bytes to its first client.
fn answering(answer: &'static [u8]) -> (tempfile::TempDir, Client) {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("control.sock");
    let listener = UnixListener::bind(&path).expect("free");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a caller");
        let mut question = [0; 1024];
        let _ = stream.read(&mut question).await.expect("a question");
        stream.write_all(answer).await.expect("a reader");
    });
    (dir, Client::new(path))
}

#[tokio::test]
async fn no_socket_is_unreachable() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("none.sock");
    let error = Client::new(&path).status(None).await.expect_err("nobody there");
    assert!(matches!(&error, ClientError::Unreachable { socket, .. } if *socket == path), "{error}");
    let remedy = error.remedy();
    assert!(remedy.contains("is `shunt run` running?") && remedy.contains("none.sock"), "{remedy}");
}

#[tokio::test]
async fn a_socket_left_behind_is_unreachable() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("stale.sock");
    drop(StdListener::bind(&path).expect("free"));
    let error = Client::new(&path).version().await.expect_err("nobody listens");
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn a_response_that_breaks_off_is_an_error() {
    let (_dir, client) = answering(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{");
    let error = client.status(None).await.expect_err("cut");
    assert!(matches!(error, ClientError::Broken(_)), "{error}");
}

#[tokio::test]
async fn a_document_that_is_no_status_is_reported() {
    let (_dir, client) = answering(b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n{\"schema\":3}");
    let error = client.status(None).await.expect_err("not a status");
    assert!(matches!(error, ClientError::Garbled(_)), "{error}");
}

#[tokio::test]
async fn a_daemon_with_another_schema_is_refused() {
    let (_dir, client) = answering(b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n{\"schema\":9}");
    let error = client.status_json(None).await.expect_err("another schema");
    assert_eq!(error.to_string(), "the daemon's JSON has schema 9, this program reads schema 3");
    let (_dir, client) = answering(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}");
    let error = client.reload(true, false).await.expect_err("no schema");
    assert_eq!(error.to_string(), "the daemon's JSON has no schema number, this program reads schema 3");
    let (_dir, client) = answering(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    let error = client.events(&EventsQuery::default()).await.expect_err("no schema");
    assert!(matches!(error, ClientError::OtherSchema(None)), "{error}");
    assert!(error.remedy().contains("restart the daemon"), "{}", error.remedy());
}

#[tokio::test(start_paused = true)]
async fn a_silent_daemon_is_given_up() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("control.sock");
    let _listener = StdListener::bind(&path).expect("free");
    let error = Client::new(&path).status(None).await.expect_err("nobody accepts");
    assert!(matches!(error, ClientError::Silent(_)), "{error}");
}

#[tokio::test]
async fn lines_are_put_together_from_pieces() {
    let (_dir, client) = answering(
        b"HTTP/1.1 200 OK\r\nshunt-schema: 3\r\ntransfer-encoding: chunked\r\n\r\n3\r\n{\"a\r\n6\r\n\":1}\n{\r\n4\r\n}\n\nx\r\n0\r\n\r\n",
    );
    let mut lines = client.events(&EventsQuery::default()).await.expect("200");
    let mut all = Vec::new();
    while let Some(line) = lines.next().await.expect("whole") {
        all.push(line);
    }
    // Text after the last end of line is not a line.
    assert_eq!(all, ["{\"a\":1}", "{}", ""]);
}

#[test]
fn queries_are_escaped() {
    assert_eq!(escaped("web-1_a.b~"), "web-1_a.b~");
    assert_eq!(escaped("a b&c=ä"), "a%20b%26c%3D%C3%A4");
    assert_eq!(query(None), "");
    assert_eq!(query(["a=1".to_owned(), "b=2".to_owned()]), "?a=1&b=2");
}
