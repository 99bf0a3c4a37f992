//! The result of one exchange with a backend, and of one probe.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::codes::ProbeCode;

/// How many different clients have lately completed a handshake with a service. It counts prefixes (/24 of
/// IPv4, /48 of IPv6) and addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientCounts {
    pub prefixes: u32,
    pub addresses: u32,
}

impl ClientCounts {
    /// The service has one client at most.
    pub const fn is_lone(self) -> bool {
        self.prefixes < 2 && self.addresses < 2
    }
}

/// The knowledge that comes with an outcome. The default is none: the engine judges such an outcome at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// The clients of the service. `Some` also says that Shunt can confirm an L4 failure.
    pub client_counts: Option<ClientCounts>,
    /// An L4 failure that came long after the request was complete.
    pub late: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Status(u16),
    Failure(L4Failure),
    /// The first answer on a connection whose responses cannot be read: TLS, HTTP/2, anything else.
    /// It counts as a success. Such a connection shows no other one.
    Answered,
    /// A response that cannot be read. No detector counts it.
    Opaque,
}

/// Why an exchange had no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum L4Failure {
    /// A reset answered the SYN.
    ConnectRefused,
    /// Nothing answered the SYN.
    ConnectTimeout,
    /// A reset came before any byte of the response.
    Reset,
    /// The backend closed before any byte of the response.
    NoResponse,
    /// No head within `response_timeout`.
    ResponseTimeout,
}

impl L4Failure {
    /// The status it counts as while L4 failures are not split off.
    pub const fn status(self) -> u16 {
        match self {
            Self::ConnectRefused | Self::ConnectTimeout | Self::Reset | Self::NoResponse => 503,
            Self::ResponseTimeout => 504,
        }
    }
}

impl fmt::Display for L4Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::ConnectRefused => "connect_refused",
            Self::ConnectTimeout => "connect_timeout",
            Self::Reset => "reset",
            Self::NoResponse => "no_response",
            Self::ResponseTimeout => "response_timeout",
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeResult {
    Pass,
    /// The status that answered an HTTP probe. The probe's `expect` and `fail_fast` decide what it means.
    Status(u16),
    Fail(ProbeFailure),
}

/// Why a probe failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeFailure {
    pub code: ProbeCode,
    /// In a few words: `status 503`, `connection refused`, `timeout`.
    pub says: String,
}

impl ProbeResult {
    pub fn fail(code: ProbeCode, says: impl Into<String>) -> Self {
        Self::Fail(ProbeFailure { code, says: says.into() })
    }

    pub const fn code(&self) -> ProbeCode {
        match self {
            Self::Pass => ProbeCode::Pass,
            Self::Status(_) => ProbeCode::Status,
            Self::Fail(failure) => failure.code,
        }
    }
}

impl fmt::Display for ProbeResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pass => f.pad("pass"),
            Self::Status(status) => write!(f, "status {status}"),
            Self::Fail(failure) => f.pad(&failure.says),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_clients_of_one_network_are_not_one() {
        let counts = |prefixes, addresses| ClientCounts { prefixes, addresses };
        assert!(counts(0, 0).is_lone() && counts(1, 1).is_lone());
        assert!(!counts(1, 2).is_lone() && !counts(2, 1).is_lone());
    }

    #[test]
    fn failures_are_called_as_in_json() {
        for failure in [L4Failure::ConnectRefused, L4Failure::ConnectTimeout, L4Failure::ResponseTimeout] {
            assert_eq!(serde_json::to_value(failure).expect("a word"), failure.to_string());
        }
    }
}
