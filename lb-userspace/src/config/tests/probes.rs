//! `https`, `grpc`, and the certificates they trust.

use lb_core::config::{GrpcProbe, HttpProbe, Probe, Tls, Trust};
use rcgen::{CertificateParams, KeyPair};

use super::*;

/// `SMALL` with a probe of this kind and with these keys.
fn with(kind: &str, keys: &str) -> String {
    small_with(9, &format!("[service.web.probe.{kind}]")).replace("path = \"/healthz\"", keys)
}

fn probe(kind: &str, keys: &str) -> Probe {
    right(&with(kind, keys)).core.services[0].probe.clone().expect("configured")
}

fn https(keys: &str) -> HttpProbe {
    match probe("https", keys).kind {
        ProbeKind::Http(http) => http,
        kind @ (ProbeKind::Tcp | ProbeKind::Grpc(_)) => panic!("{kind:?}"),
    }
}

fn grpc(keys: &str) -> GrpcProbe {
    match probe("grpc", keys).kind {
        ProbeKind::Grpc(grpc) => grpc,
        kind @ (ProbeKind::Tcp | ProbeKind::Http(_)) => panic!("{kind:?}"),
    }
}

/// A certificate in PEM and in DER.
fn certificate() -> (String, Vec<u8>) {
    let key = KeyPair::generate().expect("a key");
    let certificate =
        CertificateParams::new(Vec::new()).expect("no names").self_signed(&key).expect("signed");
    (certificate.pem(), certificate.der().to_vec())
}

#[test]
fn every_kind_has_the_pace() {
    for kind in ["http", "https", "tcp", "grpc"] {
        let probe = probe(kind, "interval = \"7s\"\nrise = 4\njitter = 0");
        assert_eq!((probe.interval, probe.rise, probe.jitter), (Millis::secs(7), 4, 0), "{kind}");
    }
}

#[test]
fn every_kind_may_go_to_another_port_and_a_backend_to_another_address() {
    for kind in ["http", "https", "tcp", "grpc"] {
        assert_eq!(probe(kind, "").port, None);
        assert_eq!(probe(kind, "port = 8081").port, Some(8081));
    }
    let problems = lines(&wrong(&with("tcp", "port = 65536")));
    assert!(problems[0].contains("[service.web.probe.tcp.port]"), "{problems:?}");
    let table = "w = { address = \"10.0.0.9:80\", probe_address = \"10.0.1.9:9000\" }";
    let text = format!(
        "interfaces = [\"eth0\"]\n[service.web]\nvip = \"203.0.113.10:80\"\n[service.web.backends]\n{table}\n"
    );
    let file = parse("shunt.toml", &text).unwrap_or_else(|wrong| panic!("{}", wrong.render(false)));
    let backend = &file.core.services[0].backends[0];
    assert_eq!(backend.probed_at(&Probe::default()), "10.0.1.9:9000".parse().expect("literal"));
    let problems = lines(&wrong(&text.replace("10.0.1.9:9000", "10.0.1.9")));
    assert!(problems[0].contains("`10.0.1.9` has no port"), "{problems:?}");
}

#[test]
fn https_has_the_keys_of_http_and_verifies_by_default() {
    let http = https("path = \"/ready\"\nexpect = [204]\nexpect_body = \"fine\"");
    assert_eq!(
        (&*http.path, &*http.expect, http.expect_body.as_deref()),
        ("/ready", &[204..=204][..], Some("fine"))
    );
    assert_eq!(http.tls, Some(Tls { server_name: None, trust: Trust::Platform }));
    assert_eq!(https("insecure = true").tls.map(|tls| tls.trust), Some(Trust::Anyone));
    let plain = probe("http", "expect_body = \"fine\"").kind;
    let expected = HttpProbe { expect_body: Some("fine".to_owned()), ..HttpProbe::default() };
    assert_eq!(plain, ProbeKind::Http(expected));
}

#[test]
fn the_name_of_the_server_is_given_or_that_of_the_host() {
    for (keys, name) in [
        ("host = \"shop.example\"", "shop.example"),
        ("host = \"shop.example:8443\"", "shop.example"),
        ("host = \"192.0.2.1\"", "192.0.2.1"),
        ("host = \"[2001:db8::1]:8443\"", "2001:db8::1"),
        ("host = \"2001:db8::1\"", "2001:db8::1"),
        ("host = \"shop.example\"\nserver_name = \"inside.example\"", "inside.example"),
        ("host = \"-odd-\"\nserver_name = \"inside.example\"", "inside.example"),
    ] {
        assert_eq!(https(keys).tls.and_then(|tls| tls.server_name).as_deref(), Some(name), "{keys}");
        let tls = grpc(&format!("tls = true\n{keys}")).tls;
        assert_eq!(tls.and_then(|tls| tls.server_name).as_deref(), Some(name), "{keys}");
    }
}

#[test]
fn grpc_uses_no_tls_and_asks_for_the_whole_server_by_default() {
    assert_eq!(grpc(""), GrpcProbe::default());
    let asked = grpc("service = \"shop.v1.Cart\"\nhost = \"cart.example\"");
    assert_eq!(
        (&*asked.service, asked.host.as_deref(), asked.tls),
        ("shop.v1.Cart", Some("cart.example"), None)
    );
    assert_eq!(grpc("tls = true").tls, Some(Tls::default()));
}

#[test]
fn wrong_keys_are_answered_with_place_and_remedy() {
    for (kind, keys, expected) in [
        (
            "http",
            "ca = \"/x\"\ninsecure = true",
            &[
                "10:1 [service.web.probe.http.ca] `ca` has no effect without TLS | write `[service.NAME.probe.https]`, or remove the key",
                "11:1 [service.web.probe.http.insecure] `insecure` has no effect without TLS | write `[service.NAME.probe.https]`, or remove the key",
            ][..],
        ),
        (
            "grpc",
            "server_name = \"shop.example\"",
            &[
                "10:1 [service.web.probe.grpc.server_name] `server_name` has no effect without TLS | add `tls = true`, or remove the key",
            ],
        ),
        (
            "grpc",
            "path = \"/healthz\"\nsevice = \"a\"",
            &[
                "10:1 [service.web.probe.grpc.path] unknown key `path` | known here are `service`, `host`, `tls`, `server_name`, `ca`, `insecure`, `port`, `interval`, `timeout`, `rise`, `fall`, `fast_interval`, `down_interval`, `jitter`, `fail_open_percent`",
                "11:1 [service.web.probe.grpc.sevice] unknown key `sevice` | did you mean `service`?",
            ],
        ),
        (
            "https",
            "sni = \"shop.example\"\ntls_skip_verify = true\ntls = true",
            &[
                "10:1 [service.web.probe.https.sni] unknown key `sni` | did you mean `server_name`?",
                "11:1 [service.web.probe.https.tls_skip_verify] unknown key `tls_skip_verify` | did you mean `insecure`?",
                "12:1 [service.web.probe.https.tls] unknown key `tls` | known here are `method`, `path`, `host`, `headers`, `expect`, `expect_body`, `fail_fast`, `server_name`, `ca`, `insecure`, `port`, `interval`, `timeout`, `rise`, `fall`, `fast_interval`, `down_interval`, `jitter`, `fail_open_percent`",
            ],
        ),
        (
            "https",
            "ca = \"/x\"\ninsecure = true",
            &[
                "10:6 [service.web.probe.https.ca] with `insecure = true` the probe accepts every certificate, so `ca` has no effect | remove one of them",
            ],
        ),
        (
            "https",
            "host = \"-odd-:1\"",
            &[
                "10:8 [service.web.probe.https.host] `-odd-` cannot be in a certificate | write beside `host` the name that the certificate is for: `server_name = \"shop.example\"`",
            ],
        ),
        (
            "https",
            "server_name = \"shop.example:443\"",
            &[
                "10:15 [service.web.probe.https.server_name] `shop.example:443` is not the name of a server | write a name or an address without a port, for example `server_name = \"shop.example\"`",
            ],
        ),
        (
            "https",
            "method = \"HEAD\"\nexpect_body = \"ok\"",
            &[
                "11:15 [service.web.probe.https.expect_body] a response to HEAD has no body | remove `expect_body`, or write `method = \"GET\"`",
            ],
        ),
        (
            "http",
            "expect_body = \"\"",
            &[
                "10:15 [service.web.probe.http.expect_body] every body has the empty text | write a text, or remove the key",
            ],
        ),
        (
            "grpc",
            "service = \"a\\nb\"",
            &[
                "10:11 [service.web.probe.grpc.service] `a\\nb` is not the name of a service | write for example `service = \"shop.v1.Cart\"`, or an empty text for the whole server",
            ],
        ),
    ] {
        assert_eq!(lines(&wrong(&with(kind, keys))), expected, "{kind}: {keys}");
    }
}

#[test]
fn the_certificates_of_a_file_are_read_with_the_configuration() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ca.pem");
    let ((one, one_der), (two, two_der)) = (certificate(), certificate());
    // Text beside the certificates is no matter.
    std::fs::write(&path, format!("the first\n{one}\nthe second\n{two}")).expect("written");
    let keys = format!("ca = {path:?}");
    let trust = |keys: &str| https(keys).tls.expect("TLS").trust;
    assert_eq!(trust(&keys), Trust::Authorities(vec![one_der, two_der.clone()]));
    assert_eq!(grpc(&format!("tls = true\n{keys}")).tls.expect("TLS").trust, trust(&keys));
    // The content of the file is configured: another content is another configuration.
    let before = right(&with("https", &keys));
    assert_eq!(right(&with("https", &keys)), before);
    let filled = format!("{two}{}", "\n".repeat((1 << 20) - two.len()));
    std::fs::write(&path, filled).expect("written");
    assert_eq!(trust(&keys), Trust::Authorities(vec![two_der]), "also with all that it may hold");
    assert_ne!(right(&with("https", &keys)), before);
}

#[test]
fn a_file_without_usable_certificates_is_an_error_at_its_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ca.pem");
    let good = certificate().0;
    let damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let pem = "it must be PEM, with `-----BEGIN CERTIFICATE-----`; `openssl x509 -inform der -in FILE` converts DER";
    let look = "`openssl x509 -in FILE -noout -text` says more; a certificate begins with `-----BEGIN CERTIFICATE-----`";
    let name = path.display();
    let said = |message: String, help: &str| format!("10:6 [service.web.probe.https.ca] {message} | {help}");
    for (content, expected) in [
        (String::new(), said(format!("`{name}` contains no certificate"), pem)),
        ("\u{30}\u{82}\u{1}".to_owned(), said(format!("`{name}` contains no certificate"), pem)),
        (format!("{good}{damaged}"), said(format!("certificate 2 in `{name}` is damaged"), look)),
        (
            "-----BEGIN CERTIFICATE-----\nMII".to_owned(),
            said(format!("certificate 1 in `{name}` is damaged"), look),
        ),
        (
            "x".repeat((1 << 20) + 1),
            said(format!("`{name}` is larger than 1024 KiB"), "name a file of CA certificates in PEM"),
        ),
    ] {
        std::fs::write(&path, content).expect("written");
        assert_eq!(lines(&wrong(&with("https", &format!("ca = {path:?}")))), [expected]);
    }
}

#[test]
fn a_file_that_cannot_be_read_is_an_error_at_its_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let pipe = folder.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).expect("a pipe");
    let help = "name a file that this user may read; it is read here, and at each reload";
    for (path, why) in [
        (folder.path().join("none.pem"), "entity not found"),
        // Nobody is waited for.
        (pipe, "it is not a file"),
        (folder.path().to_owned(), "it is not a file"),
    ] {
        let expected =
            format!("10:6 [service.web.probe.https.ca] cannot read `{}`: {why} | {help}", path.display());
        assert_eq!(lines(&wrong(&with("https", &format!("ca = {path:?}")))), [expected]);
    }
    let relative = lines(&wrong(&with("https", "ca = \"ca.pem\"")));
    assert_eq!(
        relative,
        [
            "10:6 [service.web.probe.https.ca] `ca.pem` is not an absolute path | write for example `ca = \"/etc/shunt/ca.pem\"`"
        ]
    );
}

#[test]
fn the_limits_of_a_probe() {
    let x = |length: usize| "x".repeat(length);
    let path = |length: usize| format!("path = \"/{}\"", x(length - 1));
    let body = |length| format!("expect_body = \"{}\"", x(length));
    let host = |length| format!("host = \"{}\"", x(length));
    let header = |name, value| format!("headers = {{ {} = \"{}\" }}", x(name), x(value));
    let service = |length| format!("service = \"{}\"", x(length));
    for (kind, fine, beyond) in [
        ("http", path(2048), path(2049)),
        ("http", body(1024), body(1025)),
        ("http", host(255), host(256)),
        ("http", host(1), host(0)),
        ("http", header(256, 1), header(257, 1)),
        ("http", header(1, 4096), header(1, 4097)),
        ("http", "headers = { a = \"b c\" }".to_owned(), "headers = { a = \" b\" }".to_owned()),
        ("http", "headers = { a = \"!~\" }".to_owned(), "headers = { a = \"é\" }".to_owned()),
        ("grpc", service(1024), service(1025)),
        ("grpc", service(0), "service = \"a\\u0007\"".to_owned()),
        (
            "tcp",
            "interval = \"2s\"\ntimeout = \"2s\"".to_owned(),
            "interval = \"2s\"\ntimeout = \"2001ms\"".to_owned(),
        ),
    ] {
        right(&with(kind, &fine));
        assert_eq!(wrong(&with(kind, &beyond)).count(), 1, "{beyond}");
    }
}
