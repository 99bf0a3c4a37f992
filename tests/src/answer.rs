//! A program run to its end, within a time, and what it said.

use std::{
    io::Read,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use lb_lab::{Error, Host, Result};

/// More than any command takes on a busy machine that answers at all.
const LIMIT: Duration = Duration::from_secs(20);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// `None`: ended by a signal.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Answer {
    /// Runs it on a host. It is killed, and that is an error, when it does not end.
    pub fn of(host: &Host, command: &mut Command) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = host.spawn(command)?;
        let stdout = process.child().stdout.take().expect("standard output is piped");
        let stderr = process.child().stderr.take().expect("standard error is piped");
        let readers = [thread::spawn(move || read(stdout)), thread::spawn(move || read(stderr))];
        let ended = process.wait(LIMIT);
        // Ends its writers, so that the readers come to their end as well.
        drop(process);
        let [stdout, stderr] = readers.map(|reader| reader.join().expect("a reader does not panic"));
        match ended {
            Ok(status) => Ok(Self { code: status.code(), stdout, stderr }),
            Err(error) => Err(Error::Command {
                command: format!("{command:?}"),
                stderr: format!("{error}\n{stdout}{stderr}"),
            }),
        }
    }

    /// That it ended with this code, wrote nothing on standard output, and each of these on standard error.
    #[track_caller]
    pub fn refuses(&self, code: i32, words: &[&str]) {
        assert_eq!((self.code, self.stdout.as_str()), (Some(code), ""), "{self}");
        for word in words {
            assert!(self.stderr.contains(word), "`{word}` is missing in\n{self}");
        }
    }

    /// That it ended well and complained about nothing.
    #[track_caller]
    pub fn succeeds(&self) {
        assert_eq!((self.code, self.stderr.as_str()), (Some(0), ""), "{self}");
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit {:?}\nstdout: {}\nstderr: {}", self.code, self.stdout, self.stderr)
    }
}

fn read(mut pipe: impl Read) -> String {
    let mut bytes = Vec::new();
    // If the connection breaks, the answer is what came until then.
    let _ = pipe.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}
