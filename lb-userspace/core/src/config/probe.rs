//! `[service.NAME.probe.KIND]`.

use std::ops::RangeInclusive;

use crate::time::Millis;

/// An active probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    pub kind: ProbeKind,
    /// The port that it connects to. Default: the backend's.
    pub port: Option<u16>,
    /// Between the starts of two probes of one backend. Default 2 s.
    pub interval: Millis,
    /// Default 1 s; never above `interval`.
    pub timeout: Millis,
    /// Passes in a row that bring a backend up. Default 2.
    pub rise: u32,
    /// Failures in a row that take it down. Default 3.
    pub fall: u32,
    /// Instead of `interval` while some results speak against the state. Default `interval`.
    pub fast_interval: Millis,
    /// Instead of `interval` while the backend is down. Default `interval`.
    pub down_interval: Millis,
    /// How much each interval varies at random, in percent of it either way. Default 10.
    pub jitter: u8,
    /// When so many percent of the backends are down at once, the service uses those whose breaker is
    /// closed. 0: off. Default 100.
    pub fail_open_percent: u8,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    /// A TCP handshake.
    Tcp,
    /// An HTTP/1.1 request, in the clear or in TLS.
    Http(HttpProbe),
    /// `grpc.health.v1.Health/Check` over HTTP/2, in the clear or in TLS.
    Grpc(GrpcProbe),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpProbe {
    /// Default `GET`.
    pub method: String,
    /// Default `/`.
    pub path: String,
    /// `Host` header. Default: the backend's address and port.
    pub host: Option<String>,
    /// Extra request headers.
    pub headers: Vec<(String, String)>,
    /// Statuses that pass. Default 200-399.
    pub expect: Vec<RangeInclusive<u16>>,
    /// Text that the body of an expected response must have, near its beginning. Default none.
    pub expect_body: Option<String>,
    /// Statuses that take a backend down at the first sight. Default none.
    pub fail_fast: Vec<RangeInclusive<u16>>,
    /// Default none.
    pub tls: Option<Tls>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrpcProbe {
    /// The gRPC service whose health the probe asks for. Default empty: the server as a whole.
    pub service: String,
    /// `:authority`. Default: the backend's address and port.
    pub host: Option<String>,
    /// Default none.
    pub tls: Option<Tls>,
}

/// How a probe speaks TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// The name in SNI and in the certificate. Default: the backend's address.
    pub server_name: Option<String>,
    pub trust: Trust,
}

/// The authorities whose certificates the probe accepts.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trust {
    /// Those that this host trusts.
    #[default]
    Platform,
    /// Only these, in DER.
    Authorities(Vec<Vec<u8>>),
    /// Any.
    Anyone,
}

impl HttpProbe {
    pub fn expects(&self, status: u16) -> bool {
        self.expect.iter().any(|range| range.contains(&status))
    }

    pub fn fails_fast(&self, status: u16) -> bool {
        self.fail_fast.iter().any(|range| range.contains(&status))
    }
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            kind: ProbeKind::Tcp,
            port: None,
            interval: Millis::secs(2),
            timeout: Millis::secs(1),
            rise: 2,
            fall: 3,
            fast_interval: Millis::secs(2),
            down_interval: Millis::secs(2),
            jitter: 10,
            fail_open_percent: 100,
        }
    }
}

impl Default for HttpProbe {
    fn default() -> Self {
        Self {
            method: "GET".to_owned(),
            path: "/".to_owned(),
            host: None,
            headers: Vec::new(),
            expect: vec![200..=399],
            expect_body: None,
            fail_fast: Vec::new(),
            tls: None,
        }
    }
}
