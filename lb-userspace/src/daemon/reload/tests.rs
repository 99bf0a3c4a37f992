use std::net::IpAddr;

use super::*;

fn file(text: &str) -> File {
    config::parse("shunt.toml", text).unwrap_or_else(|wrong| panic!("{}", wrong.render(false)))
}

const BEFORE: &str = "\
interfaces = [\"eth0\"]
[service.web]
vip = \"203.0.113.10:80\"
[service.web.backends]
web-1 = \"10.0.0.11:8080\"
web-2 = \"10.0.0.12:8080\"
web-3 = \"10.0.0.13:8080\"
[service.old]
vip = \"203.0.113.10:81\"
[service.old.backends]
old-1 = \"10.0.0.21:8080\"
";

#[test]
fn each_difference_is_a_sentence() {
    let before = file(BEFORE);
    assert_eq!(differences(&before.core, &before.core), []);
    let after = file(
        "\
interfaces = [\"eth0\"]
[service.web]
vip = \"203.0.113.11:80\"
on_eject = \"drain\"
drain_timeout = \"5s\"
redispatch = true
[service.web.fallback]
web-3 = \"10.0.0.13:8080\"
sorry = \"10.0.0.19:8080\"
[service.web.backends]
web-1 = { address = \"10.0.0.11:8080\", weight = 50 }
web-2 = \"10.0.0.99:8080\"
web-4 = \"10.0.0.14:8080\"
[service.web.breaker]
consecutive_5xx = 9
[service.new]
vip = \"203.0.113.10:82\"
[service.new.backends]
new-1 = \"10.0.0.31:8080\"
",
    );
    let expected = [
        "web: vip 203.0.113.10:80 -> 203.0.113.11:80",
        "web: breaker changed",
        "web: on_eject changed",
        "web: drain_timeout changed",
        "web: redispatch changed",
        "web/web-1: weight 100 -> 50",
        "web/web-2: address 10.0.0.12:8080 -> 10.0.0.99:8080, as a new backend",
        "web/web-3: of the fallback from now on",
        "web/sorry: added at 10.0.0.19:8080",
        "web/web-4: added at 10.0.0.14:8080",
        "old: removed",
        "new: added at 203.0.113.10:82, 1 backends",
    ];
    let changes = differences(&before.core, &after.core);
    let mut said: Vec<_> = changes.into_iter().map(|change| change.says).collect();
    let mut expected: Vec<_> = expected.map(str::to_owned).into();
    // The order of services is the file's.
    said.sort();
    expected.sort();
    assert_eq!(said, expected);
}

#[test]
fn what_needs_a_restart_is_named() {
    let (configured, _) = Configured::new(file(BEFORE), "shunt.toml".into());
    let with = |lines: &str| file(&BEFORE.replace("interfaces = [\"eth0\"]\n", lines));
    assert_eq!(configured.needs_restart(&file(BEFORE)), [""; 0]);
    let other = with(
        "interfaces = [\"eth1\"]\nstate_file = \"/tmp/x\"\nlog = \"debug\"\ntimeouts.closing = \"9s\"\n",
    );
    assert_eq!(configured.needs_restart(&other), ["state_file", "log", "timeouts"]);
    let says = |change: Change| (change.code, change.says);
    let changes: Vec<_> = configured.differences(&other).into_iter().map(says).collect();
    let expected = [
        (ChangeCode::InterfaceAttached, "interface eth1: attached".to_owned()),
        (ChangeCode::InterfaceDetached, "interface eth0: detached".to_owned()),
    ];
    assert_eq!(changes, expected);
}

#[test]
fn the_next_hop_of_a_removed_backend_is_followed_until_the_next_reload() {
    let (mut configured, watched) = Configured::new(file(BEFORE), "shunt.toml".into());
    let removed: IpAddr = "10.0.0.11".parse().expect("literal");
    for is_followed in [true, false] {
        configured.take(file(&BEFORE.replace("10.0.0.11", "10.0.0.99")), &[]);
        assert_eq!(watched.borrow().contains(&removed), is_followed);
    }
}

#[test]
fn what_needs_a_restart_is_named_until_it_is_in_force() {
    let (mut configured, watched) = Configured::new(file(BEFORE), "shunt.toml".into());
    let other = BEFORE.replace("[service.web]", "max_flows = 65536\n[service.web]");
    let moved = other.replace("10.0.0.11", "10.0.0.99");
    for _ in 0..2 {
        assert_eq!(configured.needs_restart(&file(&moved)), ["max_flows"]);
        configured.take(file(&moved), &[]);
    }
    // The keys that a reload changes are compared with the last reload.
    assert_eq!(configured.differences(&file(&moved)), []);
    assert!(watched.borrow().contains(&"10.0.0.99".parse().expect("literal")));
    // The file of the start needs no restart.
    assert_eq!(configured.needs_restart(&file(BEFORE)), [""; 0]);
}
