//! Why a TLS session failed, in the words of an operator: the cause, and what to do about it.

use lb_core::codes::ProbeCode;
use tokio_rustls::rustls::{
    AlertDescription, CertificateError, Error, InvalidMessage, OtherError, PeerIncompatible,
};

/// One failure always has one text: no times and no numbers of the moment are in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TlsFailure {
    #[error("the certificate has expired: renew it, or check the clock of this node")]
    Expired,
    #[error("the certificate is not valid yet: check the clocks of the backend and of this node")]
    NotYetValid,
    #[error("the certificate is signed by none that is trusted: name the file of its authority in `ca`")]
    UnknownIssuer,
    #[error("the certificate is not for {0}: write a name that it has into `server_name`")]
    WrongName(String),
    #[error("the certificate is an authority's own: let the backend show one that the authority has signed")]
    Authority,
    #[error("the certificate is not for servers: issue one with the purpose `serverAuth`")]
    Purpose,
    #[error("the certificate is refused ({0}): issue another one")]
    Certificate(String),
    #[error("the port does not speak TLS: probe it without TLS, or probe another port")]
    NoTls,
    #[error("the backend speaks neither TLS 1.2 nor TLS 1.3: turn one of them on there")]
    Version,
    #[error(
        "the backend and Shunt have no cipher suite, key exchange or signature in common: allow more there"
    )]
    Parameters,
    #[error("the backend wants a client certificate, and probes have none: exempt them, or use a TCP probe")]
    ClientCertificate,
    #[error("the backend does not offer the protocol of the probe inside TLS (ALPN): turn it on there")]
    Alpn,
    #[error("the backend does not know the name that was asked for: write another `server_name`")]
    UnknownName,
    #[error("the connection was closed in the handshake: look at the log of the backend")]
    Closed,
    #[error("this host trusts no certificates: install `ca-certificates`, or name a file in `ca`")]
    NoAuthorities,
    #[error("{0} cannot be the name of a server: write another `server_name`")]
    Name(String),
    #[error("the backend broke off ({0}): look at its log")]
    Alert(String),
    #[error("the session failed ({0})")]
    Other(String),
}

impl TlsFailure {
    pub(super) const fn code(&self) -> ProbeCode {
        match self {
            Self::Expired => ProbeCode::TlsExpired,
            Self::NotYetValid => ProbeCode::TlsNotYetValid,
            Self::UnknownIssuer => ProbeCode::TlsUnknownIssuer,
            Self::WrongName(_) => ProbeCode::TlsWrongName,
            Self::Authority => ProbeCode::TlsAuthority,
            Self::Purpose => ProbeCode::TlsPurpose,
            Self::Certificate(_) => ProbeCode::TlsCertificate,
            Self::NoTls => ProbeCode::TlsNone,
            Self::Version => ProbeCode::TlsVersion,
            Self::Parameters => ProbeCode::TlsParameters,
            Self::ClientCertificate => ProbeCode::TlsClientCertificate,
            Self::Alpn => ProbeCode::TlsAlpn,
            Self::UnknownName => ProbeCode::TlsUnknownName,
            Self::Closed => ProbeCode::TlsClosed,
            Self::NoAuthorities => ProbeCode::TlsNoAuthorities,
            Self::Name(_) | Self::Alert(_) | Self::Other(_) => ProbeCode::Tls,
        }
    }
}

impl From<&Error> for TlsFailure {
    fn from(error: &Error) -> Self {
        match error {
            Error::InvalidCertificate(error) => certificate(error),
            Error::AlertReceived(alert) => of_alert(*alert),
            Error::NoApplicationProtocol => Self::Alpn,
            // The first bytes are no record of TLS, as those of an HTTP response.
            Error::InvalidMessage(
                InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
            ) => Self::NoTls,
            Error::PeerIncompatible(
                PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
                | PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled,
            ) => Self::Version,
            Error::PeerIncompatible(_) => Self::Parameters,
            other => Self::Other(other.to_string()),
        }
    }
}

fn certificate(error: &CertificateError) -> TlsFailure {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => TlsFailure::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            TlsFailure::NotYetValid
        }
        CertificateError::NotValidForName => TlsFailure::WrongName("this name".to_owned()),
        CertificateError::NotValidForNameContext { expected, .. } => {
            TlsFailure::WrongName(expected.to_str().into_owned())
        }
        // The latter where one of that name is trusted, but has another key.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => TlsFailure::UnknownIssuer,
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            TlsFailure::Purpose
        }
        // The verifier has an error of its own for this, which rustls carries without a name.
        CertificateError::Other(OtherError(inner)) if format!("{inner:?}") == "CaUsedAsEndEntity" => {
            TlsFailure::Authority
        }
        other => TlsFailure::Certificate(other.to_string()),
    }
}

/// The backend has ended the handshake, or the session just after it.
fn of_alert(alert: AlertDescription) -> TlsFailure {
    match alert {
        AlertDescription::ProtocolVersion => TlsFailure::Version,
        AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity => TlsFailure::Parameters,
        AlertDescription::CertificateRequired | AlertDescription::AccessDenied => {
            TlsFailure::ClientCertificate
        }
        AlertDescription::NoApplicationProtocol => TlsFailure::Alpn,
        AlertDescription::UnrecognisedName => TlsFailure::UnknownName,
        other => TlsFailure::Alert(format!("{other:?}")),
    }
}
