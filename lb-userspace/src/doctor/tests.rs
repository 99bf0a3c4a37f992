mod traffic;

use super::*;
use crate::dataplane::{
    bpf::Owner,
    device::{Offloads, XdpFeatures},
};

fn wanted() -> Wanted {
    Wanted {
        nat_ports: 1024..=32767,
        max_flows: 131_072,
        instance: "default".to_owned(),
        bpffs: "/sys/fs/bpf".into(),
        xdp_mode: XdpMode::Auto,
        vip_ports: BTreeSet::from([80]),
        vlans: Vec::new(),
    }
}

fn good_host() -> Host {
    Host {
        kernel: Ok("6.1.0-50-cloud-amd64".to_owned()),
        btf: Ok(true),
        jit: Ok(true),
        root: true,
        capabilities: Ok(u64::MAX >> 23),
        bpffs: Ok(Bpffs::Mounted),
        forwarding: Ok(false),
        ephemeral: Ok(32768..=60999),
        reserved: Ok(Vec::new()),
        other_max_flows: None,
        memory: Ok(4 << 30),
        memory_limit: Ok(None),
        cpus: Ok(2),
    }
}

fn good_device() -> Device {
    Device {
        name: "eth0".to_owned(),
        up: true,
        driver: Ok("virtio_net".to_owned()),
        mtu: Ok(1500),
        offloads: Ok(Offloads { gro: true, ..Offloads::default() }),
        unfinished: Some(true),
        features: Ok(Some(XdpFeatures(0b0111))),
        hook: Ok(None),
        ingress: Vec::new(),
        vlans: Vec::new(),
        peer: None,
        rp_filter: Ok(0),
    }
}

fn veth(offloads: Offloads) -> Device {
    let peer = Peer { name: "far".to_owned(), namespace: Some("pod".to_owned()), offloads };
    Device { driver: Ok("veth".to_owned()), peer: Some(Ok(peer)), ..good_device() }
}

/// Of the host, by the name of the check.
fn about_host(host: &Host, wanted: &Wanted, check: &str) -> Finding {
    one(findings(host, &[], wanted), check)
}

fn about(device: Device, wanted: &Wanted, check: &str) -> Finding {
    one(
        findings(&good_host(), &[device], wanted).split_off(host::findings(&good_host(), wanted).len()),
        check,
    )
}

fn one(findings: Vec<Finding>, check: &str) -> Finding {
    let mut found = findings.into_iter().filter(|finding| finding.check == check);
    let first = found.next().unwrap_or_else(|| panic!("nothing about {check}"));
    assert_eq!(found.next(), None);
    first
}

/// Level, and words that finding and remedy have.
#[track_caller]
fn says(finding: &Finding, level: Level, words: &[&str]) {
    assert_eq!(finding.level, level, "{finding:?}");
    let text = format!("{} {}", finding.says, finding.remedy.clone().unwrap_or_default());
    for word in words {
        assert!(text.contains(word), "`{word}` is missing in {finding:?}");
    }
}

#[test]
fn a_good_host_has_no_complaint() {
    let devices = [good_device(), Device { name: "eth1".to_owned(), ..veth(Offloads::default()) }];
    for finding in findings(&good_host(), &devices, &wanted()) {
        assert_eq!((finding.level, &finding.remedy), (Level::Ok, &None), "{finding:?}");
    }
}

#[test]
fn a_missing_feature_of_the_host_has_a_remedy() {
    let good = good_host;
    let cases = [
        (
            Host { kernel: Ok("5.17.9".into()), ..good() },
            "kernel",
            Level::Fail,
            ["older than 5.18", "boot Linux"],
        ),
        (Host { kernel: Ok("strange".into()), ..good() }, "kernel", Level::Warn, ["not known", "strange"]),
        (Host { btf: Ok(false), ..good() }, "btf", Level::Warn, ["no BTF", "CONFIG_DEBUG_INFO_BTF"]),
        (
            Host { jit: Ok(false), ..good() },
            "jit",
            Level::Warn,
            ["interpreted", "sysctl net.core.bpf_jit_enable=1"],
        ),
        (
            Host { capabilities: Ok(0), ..good() },
            "capabilities",
            Level::Fail,
            ["CAP_NET_ADMIN, CAP_SYS_ADMIN", "container"],
        ),
        (
            Host { capabilities: Ok(1 << 12), root: false, ..good() },
            "capabilities",
            Level::Warn,
            ["no CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF", "as root"],
        ),
        (Host { bpffs: Ok(Bpffs::Missing), ..good() }, "bpffs", Level::Fail, ["/sys/fs/bpf", "bpffs ="]),
        (
            Host { bpffs: Ok(Bpffs::Unmounted), ..good() },
            "bpffs",
            Level::Ok,
            ["not mounted", "`shunt run` does it"],
        ),
        (
            Host { ephemeral: Ok(32000..=60999), ..good() },
            "ports",
            Level::Fail,
            [
                "nat_ports 1024-32767 overlaps the host's own ports 32000-60999",
                "sysctl net.ipv4.ip_local_port_range",
            ],
        ),
        (
            Host { memory: Ok(100 << 20), ..good() },
            "memory",
            Level::Warn,
            ["more than half", "fewer max_flows"],
        ),
        (
            Host { memory: Ok(10 << 20), ..good() },
            "memory",
            Level::Fail,
            ["10 MiB are available", "max_flows of at most"],
        ),
    ];
    for (host, check, level, words) in cases {
        says(&about_host(&host, &wanted(), check), level, &words);
    }
}

#[test]
fn a_problem_of_an_interface_has_a_remedy() {
    let good = good_device;
    let on = |offloads| Ok(offloads);
    let none = Offloads::default();
    let cases = [
        (Device { up: false, ..good() }, "link", Level::Warn, ["down", "ip link set eth0 up"]),
        (
            Device { features: Ok(Some(XdpFeatures(0))), driver: Ok("e1000e".into()), ..good() },
            "driver",
            Level::Warn,
            ["no native XDP", "generic"],
        ),
        (
            Device { features: Ok(None), driver: Ok("e1000".into()), ..good() },
            "driver",
            Level::Warn,
            ["e1000", "does not report"],
        ),
        (Device { mtu: Ok(9000), ..good() }, "mtu", Level::Warn, ["one buffer", "ip link set eth0 mtu 3498"]),
        (
            Device { offloads: on(Offloads { lro: true, ..none }), ..good() },
            "lro",
            Level::Warn,
            ["on", "ethtool -K eth0 lro off"],
        ),
        (
            Device {
                offloads: on(Offloads { rx_vlan: true, ..none }),
                vlans: vec!["eth0.7".into()],
                ..good()
            },
            "vlan",
            Level::Warn,
            ["eth0.7", "ethtool -K eth0 rxvlan off"],
        ),
        (
            veth(Offloads { tx_checksum: true, ..none }),
            "checksums",
            Level::Warn,
            ["far leaves them", "ip netns exec pod ethtool -K far tx off"],
        ),
        (
            Device { peer: Some(Err("it is elsewhere".into())), ..veth(none) },
            "checksums",
            Level::Warn,
            ["it is elsewhere", "ethtool -K DEVICE tx off"],
        ),
        (
            Device { features: Ok(Some(XdpFeatures(0b011))), ..veth(none) },
            "redirect",
            Level::Fail,
            ["vanish", "ip netns exec pod ethtool -K far gro on"],
        ),
        (
            Device { rp_filter: Ok(1), ..good() },
            "rp_filter",
            Level::Warn,
            ["strict", "sysctl net.ipv4.conf.all.rp_filter=2"],
        ),
    ];
    for (device, check, level, words) in cases {
        says(&about(device, &wanted(), check), level, &words);
    }
}

#[test]
fn jumbo_frames_are_for_drivers_that_take_several_buffers() {
    let jumbo =
        |features| Device { mtu: Ok(9000), features: Ok(Some(XdpFeatures(features))), ..good_device() };
    says(&about(jumbo(0b10_0111), &wanted(), "mtu"), Level::Ok, &["9000"]);
    says(&about(jumbo(0b00_0111), &wanted(), "mtu"), Level::Warn, &[]);
    let generic = Wanted { xdp_mode: XdpMode::Generic, ..wanted() };
    says(&about(jumbo(0b00_0111), &generic, "mtu"), Level::Ok, &["9000"]);
}

#[test]
fn unequal_mtus_are_reported_at_the_larger_one() {
    let small = Device { name: "eth1".to_owned(), mtu: Ok(1400), ..good_device() };
    let findings = findings(&good_host(), &[good_device(), small], &wanted());
    let mtus: Vec<_> = findings.iter().filter(|finding| finding.check == "mtu").collect();
    says(mtus[0], Level::Warn, &["eth1 has 1400", "ip link set eth0 mtu 1400"]);
    says(mtus[1], Level::Ok, &["1400"]);
}

#[test]
fn the_mode_that_is_asked_for_decides_what_fails() {
    let none = || Device { features: Ok(Some(XdpFeatures(0))), ..good_device() };
    let asked = |xdp_mode| Wanted { xdp_mode, ..wanted() };
    says(&about(none(), &asked(XdpMode::Native), "driver"), Level::Fail, &["no native XDP"]);
    says(&about(none(), &asked(XdpMode::Generic), "driver"), Level::Ok, &["as configured"]);
    says(&about(none(), &asked(XdpMode::Generic), "gro"), Level::Warn, &["ethtool -K eth0 gro off"]);
    let old = Device { features: Ok(None), ..good_device() };
    says(&about(old, &wanted(), "driver"), Level::Ok, &["native XDP"]);
    // At tc nothing of all that matters.
    let offloading = || Device { mtu: Ok(9000), features: Ok(Some(XdpFeatures(0))), ..good_device() };
    for check in ["driver", "hook", "mtu", "redirect", "vlan", "checksums"] {
        says(&about(offloading(), &asked(XdpMode::Tc), check), Level::Ok, &[]);
    }
    says(&about(none(), &asked(XdpMode::Tc), "driver"), Level::Ok, &["tc ingress"]);
}

#[test]
fn the_owner_of_the_hook_is_shown() {
    let held = |owner| Device {
        hook: Ok(Some(Hook { program: 7, generic: false, owner, pin: None })),
        ..good_device()
    };
    says(
        &about(held(Ok(Owner::Instance("blue".into()))), &wanted(), "hook"),
        Level::Ok,
        &["instance blue", "program 7"],
    );
    let other = Ok(Owner::Other(Some("cil_xdp_entry".into())));
    says(
        &about(held(other), &wanted(), "hook"),
        Level::Fail,
        &["cil_xdp_entry", "program 7", "ip link set eth0 xdp off"],
    );
    says(
        &about(held(Err("no".into())), &wanted(), "hook"),
        Level::Warn,
        &["program 7", "not known: no", "as root"],
    );
}

#[test]
fn a_fact_that_cannot_be_read_is_a_warning() {
    fn no<T>() -> Known<T> {
        Err("not permitted".to_owned())
    }
    let host = Host {
        kernel: no(),
        btf: no(),
        jit: no(),
        root: false,
        capabilities: no(),
        bpffs: no(),
        forwarding: no(),
        ephemeral: no(),
        reserved: no(),
        memory_limit: no(),
        other_max_flows: None,
        memory: no(),
        cpus: no(),
    };
    let device = Device {
        driver: no(),
        mtu: no(),
        offloads: no(),
        features: no(),
        hook: no(),
        peer: Some(no()),
        rp_filter: no(),
        ..good_device()
    };
    for finding in findings(&host, &[device], &wanted()) {
        let known = finding.check == "link";
        assert_eq!(finding.level, if known { Level::Ok } else { Level::Warn }, "{finding:?}");
        assert!(known || finding.says.contains("not permitted"), "{finding:?}");
    }
    says(&absent("eth7"), Level::Fail, &["interface eth7 does not exist", "`ip link`"]);
    assert_eq!(absent("eth7").interface.as_deref(), Some("eth7"));
}
