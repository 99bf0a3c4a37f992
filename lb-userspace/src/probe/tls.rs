//! TLS sessions of probes, and the certificates that probes trust.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use lb_core::config::{ProbeKind, Tls, Trust};
use rustls_native_certs::ErrorKind;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
        client::{
            Resumption,
            danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        },
        crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
        pki_types::{CertificateDer, ServerName, UnixTime},
    },
};

use super::{close::Closing, deadline::Deadline, failure::Failure, lack::Lack, tls_failure::TlsFailure};

/// The protocol inside TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Protocol {
    Http1,
    Http2,
}

/// The certificates that are trusted, read once for all probes that trust the same.
#[derive(Debug, Default)]
pub(super) struct Trusted(Mutex<BTreeMap<Trust, BTreeMap<Protocol, Arc<ClientConfig>>>>);

/// Everything that a handshake with one backend needs.
pub(super) struct Session {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Session {
    pub(super) async fn begin(
        self,
        stream: Closing,
        deadline: Deadline,
    ) -> Result<TlsStream<Closing>, Failure> {
        let stream = stream.unbuffered()?;
        deadline.limit(self.connector.connect(self.name, stream)).await?.map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => Failure::Tls(TlsFailure::Closed),
            _ => Failure::io(error),
        })
    }
}

impl Trusted {
    /// Reads the host's certificates when they are needed for the first time, which takes milliseconds.
    pub(super) fn session(
        &self,
        tls: &Tls,
        kind: &ProbeKind,
        address: SocketAddr,
    ) -> Result<Session, Failure> {
        let protocol = match kind {
            ProbeKind::Grpc(_) => Protocol::Http2,
            ProbeKind::Http(_) | ProbeKind::Tcp => Protocol::Http1,
        };
        let name = match &tls.server_name {
            Some(name) => ServerName::try_from(name.clone())
                .map_err(|_| Failure::Tls(TlsFailure::Name(name.clone())))?,
            None => ServerName::from(address.ip()),
        };
        // A panic while it was locked has left nothing half-made in it.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = known.get(&tls.trust).and_then(|configs| configs.get(&protocol)) {
            return Ok(Session { connector: config.clone().into(), name });
        }
        let config = Arc::new(config(&tls.trust, protocol)?);
        known.entry(tls.trust.clone()).or_default().insert(protocol, config.clone());
        Ok(Session { connector: config.into(), name })
    }

    /// Reads the certificates again when they are needed next.
    pub(super) fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

fn config(trust: &Trust, protocol: Protocol) -> Result<ClientConfig, Failure> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for TLS 1.2 and 1.3");
    let mut config = match roots(trust)? {
        Some(roots) => builder.with_root_certificates(roots).with_no_client_auth(),
        None => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
            .with_no_client_auth(),
    };
    config.alpn_protocols = match protocol {
        Protocol::Http1 => vec![b"http/1.1".to_vec()],
        Protocol::Http2 => vec![b"h2".to_vec()],
    };
    // A session that is resumed shows no certificate: one that has expired since would pass.
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// `None`: anyone is trusted.
fn roots(trust: &Trust) -> Result<Option<RootCertStore>, Failure> {
    let mut roots = RootCertStore::empty();
    match trust {
        Trust::Platform => {
            // Certificates that cannot be read or parsed are left out, as everywhere on the host.
            let found = rustls_native_certs::load_native_certs();
            // Without descriptors some or all of them are missing, and the next probe would trust too few.
            if let Some(lack) = found.errors.iter().find_map(|error| match &error.kind {
                ErrorKind::Io { inner, .. } => Lack::of(inner),
                _ => None,
            }) {
                return Err(Failure::Own(lack));
            }
            roots.add_parsable_certificates(found.certs);
        }
        Trust::Authorities(authorities) => {
            roots.add_parsable_certificates(
                authorities.iter().map(|der| CertificateDer::from(der.as_slice())),
            );
        }
        Trust::Anyone => return Ok(None),
    }
    if roots.is_empty() {
        return Err(Failure::Tls(TlsFailure::NoAuthorities));
    }
    Ok(Some(roots))
}

/// Takes any certificate, but still wants its holder to have signed the handshake.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
