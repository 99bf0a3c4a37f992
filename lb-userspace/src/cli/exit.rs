//! How the program ends: all exit codes, and the last message.

use std::{
    fmt,
    process::{ExitCode, Termination},
};

use crate::{
    control::{client::ClientError, model::ProblemKind, socket::BindError},
    printable::printable_lines,
};

/// The exit codes. Scripts rely on the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Done = 0,
    /// Something failed at run time.
    Failed = 1,
    /// The command line is wrong, or names something that does not exist.
    Usage = 2,
    /// The configuration is invalid.
    Config = 3,
    /// No daemon answers.
    Unreachable = 4,
    /// Refused, because traffic would suffer.
    Refused = 5,
    /// The host lacks something: a privilege, a kernel feature, an interface.
    HostNotAble = 6,
    /// Accepted, but not reached within the time given.
    NotReached = 7,
    /// `status --check`: some backend does not serve, or an interface is not in order.
    Degraded = 8,
    /// `status --check`: a service has no backend that serves.
    BelowFloor = 9,
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        ExitCode::from(self as u8)
    }
}

/// Why a command failed, and what the operator can do about it.
#[derive(Debug)]
pub struct Failure {
    pub exit: Exit,
    pub error: anyhow::Error,
    pub remedy: Option<String>,
}

impl Failure {
    pub fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self { exit, error: error.into(), remedy: None }
    }

    /// A failure with this message.
    pub fn message(exit: Exit, error: impl fmt::Display) -> Self {
        Self::new(exit, anyhow::Error::msg(error.to_string()))
    }

    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

/// The lines for stderr, without the last end of line.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", chain(&self.error))?;
        match &self.remedy {
            Some(remedy) => write!(f, "\nhelp: {remedy}"),
            None => Ok(()),
        }
    }
}

/// An error and its causes. A cause that the message before it quotes already is left out.
fn chain(error: &anyhow::Error) -> String {
    let mut line = String::new();
    let mut last = String::new();
    for part in error.chain().map(ToString::to_string) {
        if line.is_empty() {
            line.clone_from(&part);
        } else if !last.contains(&part) {
            line = format!("{line}: {part}");
        }
        last = part;
    }
    line
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(Exit::Failed, error)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let exit = match &error {
            ClientError::Unreachable { .. } | ClientError::Silent(_) => Exit::Unreachable,
            ClientError::Refused { problem, .. } => match problem.kind {
                ProblemKind::UnknownService
                | ProblemKind::UnknownBackend
                | ProblemKind::BadRequest
                | ProblemKind::NoSuchPath
                | ProblemKind::NoSuchMethod => Exit::Usage,
                ProblemKind::Floor | ProblemKind::Hazard => Exit::Refused,
                ProblemKind::InvalidConfig => Exit::Config,
                ProblemKind::Forbidden => Exit::HostNotAble,
                ProblemKind::Unavailable => Exit::Failed,
            },
            ClientError::Broken(_)
            | ClientError::Garbled(_)
            | ClientError::LongLine
            | ClientError::OtherSchema(_) => Exit::Failed,
        };
        // It quotes what the daemon sent, and the daemon what others sent to it.
        let remedy = printable_lines(&error.remedy());
        Self::message(exit, printable_lines(&chain(&error.into()))).remedy(remedy)
    }
}

impl From<BindError> for Failure {
    fn from(error: BindError) -> Self {
        let exit = match &error {
            // A second daemon would disturb the first.
            BindError::InUse { .. } => Exit::Refused,
            BindError::NotASocket(_) | BindError::TooLong(_) => Exit::Usage,
            BindError::Io { .. } | BindError::Untrusted { .. } => Exit::HostNotAble,
        };
        let remedy = error.remedy();
        Self::new(exit, error).remedy(remedy)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use anyhow::Context;

    use super::*;
    use crate::control::model::Problem;

    #[test]
    fn the_numbers_are_promised() {
        let promised = [
            (Exit::Done, 0),
            (Exit::Failed, 1),
            (Exit::Usage, 2),
            (Exit::Config, 3),
            (Exit::Unreachable, 4),
            (Exit::Refused, 5),
            (Exit::HostNotAble, 6),
            (Exit::NotReached, 7),
            (Exit::Degraded, 8),
            (Exit::BelowFloor, 9),
        ];
        for (exit, number) in promised {
            assert_eq!(exit as u8, number, "{exit:?}");
        }
    }

    #[test]
    fn client_errors_have_their_codes() {
        let refused = |kind| ClientError::Refused {
            status: 400,
            problem: Problem { kind, error: "no".to_owned(), remedy: "ask well".to_owned() },
        };
        let unreachable = ClientError::Unreachable {
            socket: "/run/none.sock".into(),
            source: io::ErrorKind::ConnectionRefused.into(),
        };
        for (error, exit) in [
            (unreachable, Exit::Unreachable),
            (ClientError::Silent("/run/s".into()), Exit::Unreachable),
            (refused(ProblemKind::UnknownBackend), Exit::Usage),
            (refused(ProblemKind::Floor), Exit::Refused),
            (refused(ProblemKind::Hazard), Exit::Refused),
            (refused(ProblemKind::InvalidConfig), Exit::Config),
            (refused(ProblemKind::Forbidden), Exit::HostNotAble),
            (refused(ProblemKind::Unavailable), Exit::Failed),
            (ClientError::LongLine, Exit::Failed),
        ] {
            let text = error.to_string();
            let failure = Failure::from(error);
            assert_eq!(failure.exit, exit, "{text}");
            assert!(failure.remedy.is_some(), "{text}");
        }
    }

    #[test]
    fn socket_errors_have_their_codes() {
        let in_use = BindError::InUse { path: "/run/s".into(), pid: Some(7) };
        let failure = Failure::from(in_use);
        assert_eq!(failure.exit, Exit::Refused);
        assert!(failure.to_string().starts_with("error: /run/s is in use by process 7\nhelp: "), "{failure}");
    }

    #[test]
    fn the_last_message_has_each_cause_once() {
        let error =
            Err::<(), _>(io::Error::other("disk on fire")).context("cannot read it").expect_err("made");
        let failure = Failure::from(error.context("cannot start"));
        assert_eq!(failure.to_string(), "error: cannot start: cannot read it: disk on fire");
        let failure = failure.remedy("use water");
        assert_eq!(failure.to_string(), "error: cannot start: cannot read it: disk on fire\nhelp: use water");

        let quoted = anyhow::Error::msg("disk on fire").context("cannot read: disk on fire");
        assert_eq!(Failure::from(quoted).to_string(), "error: cannot read: disk on fire");
    }
}
