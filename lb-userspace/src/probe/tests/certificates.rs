//! An authority, and servers with its certificates.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ConfigBuilder, RootCertStore, ServerConfig, SupportedProtocolVersion, WantsVerifier,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
        server::{WantsServerCert, WebPkiClientVerifier},
    },
};

use super::*;

pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key, in PEM and for rustls.
pub(super) struct Identity {
    chain: Vec<Vec<u8>>,
    key: Vec<u8>,
    pem: String,
    key_pem: String,
}

impl Authority {
    pub(super) fn new() -> Self {
        Self::named(&[])
    }

    pub(super) fn named(names: &[&str]) -> Self {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("signed"))
    }

    pub(super) fn trusted(&self) -> Trust {
        Trust::Authorities(vec![self.0.der().to_vec()])
    }

    pub(super) fn tls(&self, server_name: Option<&str>) -> Tls {
        Tls { server_name: server_name.map(str::to_owned), trust: self.trusted() }
    }

    pub(super) fn signs(&self, names: &[&str]) -> Identity {
        self.signs_until(names, 4000)
    }

    pub(super) fn signs_until(&self, names: &[&str], last: i32) -> Identity {
        self.signs_as(names, |params| params.not_after = date_time_ymd(last, 1, 1))
    }

    pub(super) fn signs_as(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        (params.not_before, params.not_after) = (date_time_ymd(2000, 1, 1), date_time_ymd(4000, 1, 1));
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("signed");
        Identity {
            chain: vec![certificate.der().to_vec()],
            pem: certificate.pem(),
            key: key.serialize_der(),
            key_pem: key.serialize_pem(),
        }
    }

    /// The certificate of the authority itself, as a server's.
    pub(super) fn own(&self) -> Identity {
        let key = self.0.key();
        Identity {
            chain: vec![self.0.der().to_vec()],
            pem: self.0.pem(),
            key: key.serialize_der(),
            key_pem: key.serialize_pem(),
        }
    }
}

impl Identity {
    pub(super) fn pem(&self) -> (String, String) {
        (self.pem.clone(), self.key_pem.clone())
    }

    pub(super) fn acceptor(&self, protocols: &[&[u8]]) -> TlsAcceptor {
        let builder = self.builder(rustls::DEFAULT_VERSIONS).with_no_client_auth();
        self.accepting(builder, protocols)
    }

    /// Only clients with a certificate of this authority get a session.
    pub(super) fn acceptor_for_clients_of(
        &self,
        authority: &Authority,
        versions: &[&'static SupportedProtocolVersion],
    ) -> TlsAcceptor {
        let mut roots = RootCertStore::empty();
        roots.add(authority.0.der().clone()).expect("an authority");
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let builder =
            self.builder(versions).with_client_cert_verifier(verifier.expect("it has an authority"));
        self.accepting(builder, &[])
    }

    fn builder(
        &self,
        versions: &[&'static SupportedProtocolVersion],
    ) -> ConfigBuilder<ServerConfig, WantsVerifier> {
        ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .expect("TLS 1.2 and 1.3")
    }

    fn accepting(
        &self,
        builder: ConfigBuilder<ServerConfig, WantsServerCert>,
        protocols: &[&[u8]],
    ) -> TlsAcceptor {
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.clone()));
        let chain = self.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
        let mut config = builder.with_single_cert(chain, key).expect("a key for the certificate");
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}
