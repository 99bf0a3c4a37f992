//! Why a probe failed, as people read it in events and status.

use std::{error::Error, io};

use lb_core::{codes::ProbeCode, time::Millis};
use tokio_rustls::rustls;

use super::{lack::Lack, tls_failure::TlsFailure};

#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// Not a failure of the backend.
    #[error(transparent)]
    Own(Lack),
    #[error("timeout after {}", shown(*.0))]
    Timeout(Millis),
    /// `connection refused`, `host unreachable`, `connection reset`, …
    #[error("{0}")]
    Io(io::ErrorKind),
    #[error("no valid HTTP response")]
    NotHttp,
    #[error("connection closed before the response")]
    ClosedEarly,
    #[error("response ended early")]
    EndedEarly,
    #[error("status {status}, but {}", missing(*.read))]
    Body { status: u16, read: Read },
    #[error("TLS: {0}")]
    Tls(TlsFailure),
    #[error("HTTP/2: {0}")]
    Http2(String),
    /// No gRPC server answers like this.
    #[error("not gRPC: {0}")]
    NotGrpc(String),
    #[error("gRPC status {0}")]
    GrpcStatus(String),
    #[error("health is {0}")]
    Health(String),
    #[error("request not possible: {0}")]
    Request(hyper::http::Error),
}

/// How much of a body was searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    Whole,
    /// So many bytes at its beginning.
    First(usize),
}

impl Failure {
    pub(super) fn io(error: io::Error) -> Self {
        if let Some(lack) = Lack::of(&error) {
            return Self::Own(lack);
        }
        match inner(&error) {
            Some(inner) => Self::Tls(inner.into()),
            None => Self::Io(error.kind()),
        }
    }

    pub(super) fn code(&self) -> ProbeCode {
        match self {
            // The prober tries again instead of reporting it.
            Self::Own(_) => ProbeCode::Unknown,
            Self::Timeout(_) => ProbeCode::Timeout,
            Self::Io(io::ErrorKind::ConnectionRefused) => ProbeCode::ConnectionRefused,
            Self::Io(io::ErrorKind::ConnectionReset) => ProbeCode::ConnectionReset,
            Self::Io(io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable) => {
                ProbeCode::HostUnreachable
            }
            Self::Io(_) => ProbeCode::Io,
            Self::NotHttp => ProbeCode::NotHttp,
            Self::ClosedEarly => ProbeCode::ClosedEarly,
            Self::EndedEarly => ProbeCode::EndedEarly,
            Self::Body { .. } => ProbeCode::Body,
            Self::Tls(failure) => failure.code(),
            Self::Http2(_) => ProbeCode::Http2,
            Self::NotGrpc(_) => ProbeCode::NotGrpc,
            Self::GrpcStatus(_) => ProbeCode::GrpcStatus,
            Self::Health(_) => ProbeCode::NotServing,
            Self::Request(_) => ProbeCode::Request,
        }
    }

    /// The innermost cause of hyper's error.
    pub(super) fn hyper(error: &hyper::Error) -> Self {
        let mut cause: &(dyn Error + 'static) = error;
        loop {
            if let Some(error) = cause.downcast_ref::<h2::Error>() {
                return Self::http2(error);
            }
            if let Some(error) = cause.downcast_ref::<rustls::Error>() {
                return Self::Tls(error.into());
            }
            match cause.source() {
                Some(inner) => cause = inner,
                None => break,
            }
        }
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            return Self::exchange(error);
        }
        match cause.downcast_ref::<hyper::Error>() {
            Some(error) if error.is_incomplete_message() || error.is_canceled() || error.is_closed() => {
                Self::ClosedEarly
            }
            Some(_) | None => Self::NotHttp,
        }
    }

    /// An error of an established connection.
    fn exchange(error: &io::Error) -> Self {
        if let Some(lack) = Lack::of(error) {
            return Self::Own(lack);
        }
        // A backend may end the session after its handshake, as for a client certificate that it did not get.
        if let Some(error) = inner(error) {
            return Self::Tls(error.into());
        }
        match error.kind() {
            // The backend had closed before the prober wrote. Or, in TLS, it closed without the message that
            // announces it.
            io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof => Self::ClosedEarly,
            kind => Self::Io(kind),
        }
    }

    fn http2(error: &h2::Error) -> Self {
        if let Some(error) = error.get_io() {
            return Self::exchange(error);
        }
        let what = match error.reason() {
            Some(reason) if error.is_go_away() && error.is_remote() => format!("GOAWAY {reason:?}"),
            Some(reason) if error.is_reset() && error.is_remote() => format!("RST_STREAM {reason:?}"),
            // The backend broke the protocol, most often because it speaks another one.
            Some(reason) => format!("{reason:?}"),
            None => error.to_string(),
        };
        Self::Http2(what)
    }
}

/// A TLS error stands inside an error of input and output.
fn inner(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

fn missing(read: Read) -> String {
    match read {
        Read::Whole => "its body lacks `expect_body`".to_owned(),
        Read::First(bytes) => format!("the first {} KiB of its body lack `expect_body`", bytes / 1024),
    }
}

fn shown(span: Millis) -> String {
    match span.0 {
        ms if ms.is_multiple_of(1000) => format!("{}s", ms / 1000),
        ms => format!("{ms}ms"),
    }
}
