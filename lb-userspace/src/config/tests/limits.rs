//! Inputs of unusual size or content.

use std::{io::Write, num::NonZeroU8};

use lb_core::config::{Limits, Mode, Overflow, Service, ServiceLimit};
use proptest::prelude::*;

use super::*;

#[test]
fn too_many_services_or_backends_do_not_fit_into_the_maps() {
    let services = |count: u32| {
        (0..count).fold("interfaces = [\"eth0\"]\n".to_owned(), |text, n| {
            let port = n + 1;
            text + &format!("[service.s{n}]\nvip = \"192.0.2.1:{port}\"\nbackends.b = \"10.0.0.1:{port}\"\n")
        })
    };
    right(&services(lb_common::MAX_SERVICES));
    assert!(lines(&wrong(&services(lb_common::MAX_SERVICES + 1)))[0].contains("1025 services, at most 1024"));

    let backends = |count: u32| {
        let many = "[service.many]\nvip = \"192.0.2.1:1\"\n[service.many.backends]\n";
        (0..count).fold(SMALL.to_owned() + many, |text, n| {
            text + &format!("b{n} = \"10.1.{}.{}:1\"\n", n >> 8, n & 255)
        })
    };
    right(&backends(lb_common::MAX_BACKENDS - 2));
    assert!(
        lines(&wrong(&backends(lb_common::MAX_BACKENDS - 1)))[0].contains("16385 backends, at most 16384")
    );
}

#[test]
fn a_large_file_is_refused_without_showing_it() {
    let text = "#".repeat(MAX_BYTES + 1);
    let rendered = wrong(&text).render(false);
    assert!(rendered.contains("larger than 1024 KiB") && rendered.len() < 300, "{rendered}");
    let error = parse_bytes("shunt.toml", &vec![0xff; MAX_BYTES + 1]).expect_err("too large");
    assert!(error.to_string().contains("larger than"), "{error}");
}

#[test]
fn bytes_that_are_not_text_have_a_place() {
    let error =
        parse_bytes("shunt.toml", b"interfaces = [\"eth0\"]\nlog = \"\xff\"\n").expect_err("not UTF-8");
    assert_eq!(lines(&error), ["2:8 [] the file is not UTF-8 | save it as UTF-8 text"]);
    assert!(error.render(false).contains("2 | log = "));
    // The mark that some editors put first takes no column here either.
    let error = parse_bytes("shunt.toml", b"\xef\xbb\xbflog = \"\xff\"\n").expect_err("not UTF-8");
    assert_eq!(lines(&error), ["1:8 [] the file is not UTF-8 | save it as UTF-8 text"]);
}

#[test]
fn a_flood_of_errors_is_cut_and_counted() {
    let text = small_with(1, &format!("interfaces = [\"eth0\"]\n{}", "x = =\n".repeat(5000)));
    let diagnostics = wrong(&text);
    assert_eq!((diagnostics.iter().count(), diagnostics.count()), (100, 5000));
    assert!(diagnostics.render(false).ends_with("shunt.toml: 5000 errors, the first 100 are shown\n"));
}

#[test]
fn load_distinguishes_a_missing_file_from_a_wrong_one() {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(SMALL.as_bytes()).expect("written");
    assert_eq!(load(file.path()).expect("right"), right(SMALL));
    file.write_all(b"?").expect("written");
    let error = load(file.path()).expect_err("wrong");
    assert!(matches!(&error, LoadError::Invalid(diagnostics) if diagnostics.count() == 1), "{error:?}");
    assert!(error.to_string().starts_with(&format!("{}:13:2: ", file.path().display())), "{error}");
    let error = load(Path::new("/nonexistent/shunt.toml")).expect_err("missing");
    assert!(matches!(error, LoadError::Io { .. }), "{error:?}");
    assert_eq!(error.to_string(), "cannot read /nonexistent/shunt.toml");
}

/// Pieces of TOML in any order: closer to the parser's corners than arbitrary text.
fn toml_like() -> impl Strategy<Value = String> {
    let pieces: Vec<&'static str> = vec![
        "interfaces",
        "service",
        "web",
        "vip",
        "backends",
        "probe",
        "http",
        "tcp",
        "breaker",
        "interval",
        ".",
        "=",
        "[",
        "]",
        "[[",
        "]]",
        "{",
        "}",
        ",",
        "\"",
        "'",
        "\"\"\"",
        "\n",
        "\n",
        "\r\n",
        " ",
        "#",
        "\\",
        "\\u0000",
        "5s",
        "\"5s\"",
        "\"10.0.0.1:80\"",
        "1",
        "-0",
        "0x",
        "1.5",
        "inf",
        "1979-05-27",
        "true",
        "é",
        "\u{feff}",
        "\t",
    ];
    prop::collection::vec(prop::sample::select(pieces), 0..60).prop_map(|pieces| pieces.concat())
}

fn never_panics(text: &str) {
    if let Err(diagnostics) = parse("shunt.toml", text) {
        assert!(diagnostics.iter().all(|d| !d.message.is_empty() && !d.help.is_empty()));
        assert!(diagnostics.render(false).contains("error"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_text_never_panics(text in any::<String>()) {
        never_panics(&text);
    }

    #[test]
    fn arbitrary_toml_never_panics(text in toml_like()) {
        never_panics(&text);
    }

    #[test]
    fn a_damaged_file_never_panics(at in 0..SMALL.len(), len in 0..20usize, with in toml_like()) {
        let mut text = SMALL.to_owned();
        text.replace_range(at..(at + len).min(SMALL.len()), &with);
        never_panics(&text);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Err(diagnostics) = parse_bytes("shunt.toml", &bytes) {
            diagnostics.render(false);
        }
    }
}

#[test]
fn the_mode_is_one_of_two() {
    let text = |mode: &str| {
        format!(
            "interfaces = [\"eth0\"]\n[service.web]\nvip = \"203.0.113.10:80\"\n{mode}\n\
             [service.web.backends]\nweb-1 = \"10.0.0.11:80\"\n"
        )
    };
    for (mode, wanted) in [("", Mode::Nat), ("mode = \"nat\"", Mode::Nat), ("mode = \"dnat\"", Mode::Dnat)] {
        let file = parse("shunt.toml", &text(mode)).expect("right");
        assert_eq!(file.core.services[0].mode, wanted, "{mode}");
    }
}

#[test]
fn keys_about_connections_are_read() {
    let text = small_with(
        5,
        "on_eject = \"reset\"\non_drain = \"reset\"\ndrain_timeout = \"0s\"\nredispatch = true\nno_backend = \"drop\"",
    );
    let service = &right(&text).core.services[0];
    let expected = Connections {
        on_eject: OnOut::Reset,
        on_drain: OnOut::Reset,
        drain_timeout: Millis(0),
        redispatch: true,
    };
    assert_eq!((service.connections, service.no_backend), (expected, NoBackend::Drop));
    let text = small_with(5, "on_eject = \"drain\"\nevidence = false\ndrain_timeout = \"24h\"");
    assert_eq!(right(&text).core.services[0].connections.drain_timeout, Millis::secs(86_400));
}

#[test]
fn limits_of_connections_are_read() {
    let none = right(SMALL).core.services.remove(0);
    assert_eq!(
        (none.limits, none.affinity, none.limits.of_service(none.everyone())),
        (Limits::default(), None, None)
    );
    let text = small_with(
        5,
        "max_connections = 1000\nmax_connections_per_backend = 100\noverflow = \"queue-by-retry\"",
    );
    let service = right(&text).core.services.remove(0);
    let overflow = Overflow::QueueByRetry;
    let limits = Limits { max_connections: 1000, max_connections_per_backend: 100, overflow };
    assert_eq!(service.limits, limits);
    assert_eq!(
        service.limits.of_service(service.everyone()),
        Some(ServiceLimit { max_connections: 1000, overflow })
    );
    assert_eq!(service.limits.of_backend(&service.backends[0]), 100);
}

#[test]
fn a_backend_has_a_limit_of_its_own() {
    let text = "interfaces = [\"eth0\"]\n[service.web]\nvip = \"203.0.113.10:80\"\noverflow = \"drop\"\n\
                [service.web.backends]\na = { address = \"10.0.0.1:80\", max_connections = 5 }\n\
                b = { address = \"10.0.0.2:80\", max_connections = 0 }\nc = \"10.0.0.3:80\"\n";
    let service = right(text).core.services.remove(0);
    let of = |service: &Service| -> Vec<u32> {
        service.backends.iter().map(|backend| service.limits.of_backend(backend)).collect()
    };
    assert_eq!(of(&service), [5, 0, 0]);
    let limit = ServiceLimit { max_connections: 0, overflow: Overflow::Drop };
    assert_eq!(
        service.limits.of_service(service.everyone()),
        Some(limit),
        "one limit is enough for connections to count"
    );
    let text = text.replace("overflow", "max_connections_per_backend = 9\noverflow");
    assert_eq!(of(&right(&text).core.services[0]), [5, 0, 9]);
}

#[test]
fn affinity_is_of_a_whole_address_or_of_a_prefix() {
    let of = |keys: &str| right(&small_with(5, keys)).core.services[0].affinity.map(NonZeroU8::get);
    assert_eq!(of("affinity = \"none\""), None);
    assert_eq!(of("affinity = \"source\""), Some(32));
    assert_eq!(of("affinity = \"source\"\naffinity_prefix = 24"), Some(24));
    let v6 = "interfaces = [\"eth0\"]\n[service.web]\nvip = \"[2001:db8::10]:80\"\naffinity = \"source\"\n\
              [service.web.backends]\na = \"[fd00::1]:80\"\n";
    assert_eq!(right(v6).core.services[0].affinity.map(NonZeroU8::get), Some(128));
    let v6 = v6.replace("affinity =", "affinity_prefix = 64\naffinity =");
    assert_eq!(right(&v6).core.services[0].affinity.map(NonZeroU8::get), Some(64));
    for (keys, said) in [
        ("affinity = \"client\"", "`client` is not a value of `affinity`"),
        ("affinity_prefix = 24", "without affinity this has no effect"),
        ("affinity = \"source\"\naffinity_prefix = 33", "33 is out of range"),
        ("affinity = \"source\"\naffinity_prefix = 0", "0 is out of range"),
        ("max_connections = -1", "-1 is out of range"),
        ("max_connections_per_backend = 16777217", "16777217 is out of range"),
        ("overflow = \"queue\"", "`queue` is not a value of `overflow`"),
        ("maxconn = 5", "max_connections"),
    ] {
        let found = lines(&wrong(&small_with(5, keys))).join("\n");
        assert!(found.contains(said), "{keys}: {found}");
    }
}
