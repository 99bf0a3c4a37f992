//! Services whose backends come from a discovery file.

use super::*;

/// The small file with these lines in the place of its backends.
fn with(lines: &str) -> String {
    let backends = "[service.web.backends]\nweb-1 = \"10.0.0.11:8080\"\nweb-2 = \"10.0.0.12:8080\"\n";
    let text = SMALL.replace(backends, lines);
    assert_ne!(text, SMALL);
    text
}

#[test]
fn a_service_may_have_a_discovery_file_instead_of_backends() {
    let file = right(&with("[service.web.discovery]\nfile = \"/run/web.json\"\n"));
    let expected = Discovery { file: "/run/web.json".into(), interval: Millis::secs(1) };
    assert_eq!(file.discovery.get("web"), Some(&expected));
    assert!(file.core.services[0].backends.is_empty());
    let lines = "discovery = { file = \"/run/web.json\", interval = \"100ms\" }\n\
                 fallback.sorry = \"10.0.0.9:80\"\n";
    let file = right(&with(lines));
    assert_eq!((file.discovery["web"].interval, file.core.services[0].fallback.len()), (Millis(100), 1));
    // How many backends there will be is not known.
    let text = with("discovery.file = \"/run/web.json\"\n").replace("interval", "min_serving = 9\ninterval");
    assert_eq!(right(&text).core.services[0].breaker.min_serving, 9);
}

#[test]
fn its_errors_have_their_places() {
    for (text, expected) in [
        (
            "discovery = {}\n",
            "6:13 [service.web.discovery] `file` is missing | \
             add for example `file = \"/run/shunt/discovery/web.json\"`",
        ),
        (
            "discovery.file = \"web.json\"\n",
            "6:18 [service.web.discovery.file] `web.json` is not an absolute path | \
             write for example `file = \"/run/shunt/discovery/web.json\"`",
        ),
        (
            "discovery = { file = \"/x\", interval = \"99ms\" }\n",
            "6:39 [service.web.discovery.interval] `99ms` is too short | write at least `\"100ms\"`",
        ),
        (
            "discovery = { file = \"/x\", interval = \"61m\" }\n",
            "6:39 [service.web.discovery.interval] `61m` is too long | write at most `\"1h\"`",
        ),
        (
            "discovery = { path = \"/x\" }\n",
            "6:15 [service.web.discovery.path] unknown key `path` | did you mean `file`?",
        ),
        (
            "discover.file = \"/x\"\n",
            "6:1 [service.web.discover] unknown key `discover` | did you mean `discovery`?",
        ),
        (
            "backends.a = \"10.0.0.1:80\"\ndiscovery.file = \"/x\"\n",
            "7:1 [service.web.discovery] the service has `backends` and `discovery` | \
             remove one of them: either this file names the backends, or the discovery file does",
        ),
    ] {
        assert_eq!(lines(&wrong(&with(text))), [expected], "{text}");
    }
}
