//! `shunt events`.

use super::{
    args::{self, EventsFormat},
    exit::{Exit, Failure},
    out::{self, Reader},
    palette::Palette,
    render::EventLines,
};
use crate::control::{
    client::{Client, ClientError, EventsQuery},
    model::{EventLine, Missed},
};

pub(super) async fn run(client: &Client, args: args::Events) -> Result<Exit, Failure> {
    let asked = EventsQuery { since: args.since, follow: args.follow, service: args.service };
    let mut view = match args.output {
        EventsFormat::Table => {
            let started = client.status(None).await?.started_unix_ms;
            View::Table(EventLines::new(started, Palette::of_stdout()))
        }
        EventsFormat::Jsonl => View::Jsonl,
    };
    let mut lines = client.events(&asked).await?;
    let mut gap = None;
    loop {
        let line = match lines.next().await {
            Ok(Some(line)) => line,
            Ok(None) => break,
            // A daemon that is killed does not end its response.
            Err(ClientError::Broken(_)) if asked.follow => break,
            Err(error) => return Err(error.into()),
        };
        let parsed = serde_json::from_str(&line).ok();
        gap = match parsed {
            Some(EventLine::Missed(missed)) => Some(missed),
            Some(EventLine::Event(_)) | None => None,
        };
        if let Some(text) = view.show(&line, parsed.as_ref())
            && out::print(&text)? == Reader::Gone
        {
            return Ok(Exit::Done);
        }
    }
    if asked.follow { Err(ended(gap)) } else { Ok(Exit::Done) }
}

/// The stream of events ended. Ctrl-C does not come here.
fn ended(gap: Option<Missed>) -> Failure {
    match gap {
        Some(Missed { missed, since, .. }) => Failure::message(
            Exit::Failed,
            format!("this program read the events too slowly: {missed} are missing"),
        )
        .remedy(format!("continue after the last one with `--since {since}`")),
        None => Failure::message(Exit::Unreachable, "the daemon has stopped")
            .remedy("forwarding continues without it; its log says why it stopped"),
    }
}

enum View {
    Table(EventLines),
    Jsonl,
}

impl View {
    /// The text of a line on stdout. In the table, a gap is a remark on stderr instead.
    fn show(&mut self, line: &str, parsed: Option<&EventLine>) -> Option<String> {
        match (self, parsed) {
            (Self::Table(table), Some(EventLine::Event(event))) => Some(table.show(event)),
            (Self::Table(_), Some(EventLine::Missed(Missed { missed, since, .. }))) => {
                out::remark(format!("warning: {missed} events after number {since} are missing here"));
                None
            }
            // A line of a newer daemon that this program does not understand.
            (Self::Table(_), None) | (Self::Jsonl, _) => Some(format!("{line}\n")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{fixture, model::MissedKind};

    #[test]
    fn json_lines_are_passed_on_untouched() {
        let event = EventLine::Event(Box::new(fixture::event(1, "web")));
        for parsed in [Some(&event), None] {
            assert_eq!(View::Jsonl.show("{\"x\": 1}", parsed).as_deref(), Some("{\"x\": 1}\n"));
        }
    }

    /// A daemon that sends this and is killed.
    async fn killed_after(answer: &'static [u8], follow: bool) -> Failure {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("control.sock");
        let listener = tokio::net::UnixListener::bind(&path).expect("free");
        let daemon = async {
            let (mut stream, _) = listener.accept().await.expect("a caller");
            let mut question = [0; 1024];
            let _ = stream.read(&mut question).await.expect("a question");
            stream.write_all(answer).await.expect("a reader");
        };
        let args = args::Events { follow, since: None, service: None, output: EventsFormat::Jsonl };
        let client = Client::new(path);
        let (ended, ()) = tokio::join!(run(&client, args), daemon);
        ended.expect_err("it broke off")
    }

    #[tokio::test]
    async fn a_daemon_that_is_killed_has_stopped() {
        let begun = b"HTTP/1.1 200 OK\r\nshunt-schema: 3\r\ntransfer-encoding: chunked\r\n\r\n";
        let followed = killed_after(begun, true).await;
        assert_eq!(followed.exit, Exit::Unreachable);
        assert!(followed.to_string().starts_with("error: the daemon has stopped\nhelp: "), "{followed}");
        // Without --follow, some of the events that exist may be missing.
        let read = killed_after(begun, false).await;
        assert_eq!(read.exit, Exit::Failed);
        assert!(read.to_string().contains("the connection to the daemon broke"), "{read}");
    }

    #[test]
    fn the_end_of_following_says_why() {
        let gap = Missed { kind: MissedKind::Lagged, missed: 12, since: 40 };
        let slow = ended(Some(gap));
        assert_eq!(slow.exit, Exit::Failed);
        assert!(slow.to_string().contains("--since 40"), "{slow}");
        assert_eq!(ended(None).exit, Exit::Unreachable);
    }
}
