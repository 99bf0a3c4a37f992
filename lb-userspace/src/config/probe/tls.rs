//! `server_name`, `ca` and `insecure` of a probe.

use std::{
    fs::OpenOptions,
    io::{self, Read},
    net::IpAddr,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use lb_core::config::{Tls, Trust};
use tokio_rustls::rustls::{
    RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

use super::super::{
    reader::{Node, Table, quoted},
    value,
};

/// All certificates of a usual distribution take a quarter of this.
const LARGEST_CA: u64 = 1 << 20;
const LONGEST_PATH: usize = 1024;

/// `host`: the key of that name. Without `server_name`, it gives the name of the server.
pub(super) fn read(table: &Table<'_>, host: Option<&str>) -> Option<Tls> {
    let server_name = match (table.node("server_name"), table.node("host")) {
        (Some(node), _) => server_name(node).map(Some),
        (None, Some(node)) => name_of_host(node, host),
        (None, None) => Some(None),
    };
    let insecure = table.or("insecure", false, Node::boolean).map(|insecure| insecure.value);
    let trust = match (table.node("ca"), insecure) {
        (Some(ca), Some(true)) => ca.conflict(
            "with `insecure = true` the probe accepts every certificate, so `ca` has no effect",
            "remove one of them",
            table.node("insecure").map_or(0..0, |node| node.span.clone()),
            "every certificate is accepted",
        ),
        (Some(ca), Some(false) | None) => authorities(ca).map(Trust::Authorities),
        (None, Some(true)) => Some(Trust::Anyone),
        (None, Some(false)) => Some(Trust::Platform),
        (None, None) => None,
    };
    insecure?;
    Some(Tls { server_name: server_name?, trust: trust? })
}

/// Without TLS its keys have no effect.
pub(super) fn none(table: &Table<'_>, remedy: &str) -> Option<()> {
    let mut clean = Some(());
    for key in ["server_name", "ca", "insecure"] {
        if let Some(entry) = table.entry(key) {
            clean = entry
                .key
                .reject(format!("`{key}` has no effect without TLS"), format!("{remedy}, or remove the key"));
        }
    }
    clean
}

fn server_name(node: &Node<'_>) -> Option<String> {
    const EXAMPLE: &str = "server_name = \"shop.example\"";
    let Some(text) = node.as_str() else { return node.expected("the name of a server", EXAMPLE) };
    if ServerName::try_from(text).is_err() {
        return node.reject(
            format!("{} is not the name of a server", quoted(text)),
            format!("write a name or an address without a port, for example `{EXAMPLE}`"),
        );
    }
    Some(text.to_owned())
}

/// The name in `shop.example:8443`, `192.0.2.1` or `[2001:db8::1]:443`.
fn name_of_host(node: &Node<'_>, host: Option<&str>) -> Option<Option<String>> {
    // If it is no text, that was noted where the host is read.
    let host = host?;
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None if host.parse::<IpAddr>().is_ok() => host,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    if ServerName::try_from(name).is_err() {
        return node.reject(
            format!("{} cannot be in a certificate", quoted(name)),
            "write beside `host` the name that the certificate is for: `server_name = \"shop.example\"`",
        );
    }
    Some(Some(name.to_owned()))
}

/// The certificates of a PEM file, in DER.
fn authorities(node: &Node<'_>) -> Option<Vec<Vec<u8>>> {
    const EXAMPLE: &str = "ca = \"/etc/shunt/ca.pem\"";
    let path = value::absolute_path(node, EXAMPLE, LONGEST_PATH)?;
    let shown = quoted(&path.display().to_string());
    let text = match contents(&path) {
        Ok(text) => text,
        Err(error) => {
            let help = "name a file that this user may read; it is read here, and at each reload";
            return node.reject(format!("cannot read {shown}: {}", short(&error)), help);
        }
    };
    if text.len() as u64 > LARGEST_CA {
        return node.reject(
            format!("{shown} is larger than {} KiB", LARGEST_CA >> 10),
            "name a file of CA certificates in PEM",
        );
    }
    let mut authorities = Vec::new();
    for (number, certificate) in CertificateDer::pem_slice_iter(&text).enumerate() {
        let usable = match &certificate {
            Ok(certificate) => RootCertStore::empty().add(certificate.clone()).is_ok(),
            Err(_) => false,
        };
        match certificate {
            Ok(certificate) if usable => authorities.push(certificate.as_ref().to_vec()),
            Ok(_) | Err(_) => {
                return node.reject(
                    format!("certificate {} in {shown} is damaged", number + 1),
                    "`openssl x509 -in FILE -noout -text` says more; a certificate begins with `-----BEGIN CERTIFICATE-----`",
                );
            }
        }
    }
    if authorities.is_empty() {
        return node.reject(
            format!("{shown} contains no certificate"),
            "it must be PEM, with `-----BEGIN CERTIFICATE-----`; `openssl x509 -inform der -in FILE` converts DER",
        );
    }
    Some(authorities)
}

/// Without the number that the system has for it.
fn short(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::Other => error.to_string(),
        kind => kind.to_string(),
    }
}

/// At most one byte more than is allowed. Never waits: what is no file, or one that gives nothing now, is an error.
fn contents(path: &Path) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut text = Vec::new();
    file.take(LARGEST_CA + 1).read_to_end(&mut text)?;
    Ok(text)
}
