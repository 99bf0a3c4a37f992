//! Findings that a running daemon warns about, too.

use super::*;

#[test]
fn the_port_of_a_vip_is_not_the_host_s_own() {
    let of = |ports: &[u16]| Wanted { vip_ports: ports.iter().copied().collect(), ..wanted() };
    let reserved = |ranges| Host { reserved: Ok(ranges), ..good_host() };
    says(&about_host(&good_host(), &of(&[80, 443]), "vip_ports"), Level::Ok, &[]);
    let exposed = about_host(&good_host(), &of(&[80, 32768, 60999]), "vip_ports");
    let remedy = "sysctl net.ipv4.ip_local_reserved_ports=32768,60999";
    says(&exposed, Level::Warn, &["32768, 60999", remedy]);
    assert!(exposed.about_traffic);
    // The remedy keeps the reservations that are there.
    let half = about_host(&reserved(vec![40000..=40000, 32768..=32800]), &of(&[32768, 60999]), "vip_ports");
    says(&half, Level::Warn, &["ports 60999", "=40000,32768-32800,60999"]);
    says(&about_host(&reserved(vec![60000..=61000]), &of(&[60999]), "vip_ports"), Level::Ok, &[]);
}

#[test]
fn a_private_file_system_is_a_warning_about_traffic() {
    let host = Host { bpffs: Ok(Bpffs::Private), ..good_host() };
    let found = about_host(&host, &wanted(), "bpffs");
    says(&found, Level::Warn, &["ends with the daemon", "nsenter --net="]);
    assert!(found.about_traffic);
}

#[test]
fn tags_that_the_device_removes_matter_for_vlans_of_the_file_too() {
    let strips = || Device {
        offloads: Ok(Offloads { rx_vlan: true, gro: true, ..Offloads::default() }),
        ..good_device()
    };
    says(&about(strips(), &wanted(), "vlan"), Level::Ok, &["`vlans` names none"]);
    let read = Wanted { vlans: vec![7, 9], ..wanted() };
    let found = about(strips(), &read, "vlan");
    says(&found, Level::Warn, &["VLAN 7", "VLAN 9", "ethtool -K eth0 rxvlan off"]);
    assert!(found.about_traffic);
    says(&about(strips(), &Wanted { xdp_mode: XdpMode::Tc, ..read }, "vlan"), Level::Ok, &[]);
}

#[test]
fn generic_xdp_on_a_guest_s_interface_is_no_way() {
    let of = |kernel: &str, xdp_mode, device: Device| {
        let host = Host { kernel: Ok(kernel.to_owned()), ..good_host() };
        let wanted = Wanted { xdp_mode, ..wanted() };
        move |check| {
            let of_host = host::findings(&host, &wanted).len();
            one(findings(&host, std::slice::from_ref(&device), &wanted).split_off(of_host), check)
        }
    };
    let without = || Device { features: Ok(Some(XdpFeatures(0))), ..good_device() };
    let refused = of("6.1.0", XdpMode::Auto, without());
    says(&refused("driver"), Level::Fail, &["no tcx", "csum=off,guest_csum=off"]);
    let at_tc = of("6.12.0", XdpMode::Auto, without());
    says(&at_tc("driver"), Level::Warn, &["uses tc ingress", "xdp_mode = \"tc\""]);
    says(&at_tc("checksums"), Level::Ok, &["as they are"]);
    let asked_for = of("6.1.0", XdpMode::Generic, without());
    says(&asked_for("checksums"), Level::Fail, &["takes for finished", "csum=off,guest_csum=off"]);
    assert!(asked_for("checksums").about_traffic);
    // Without the offload there is nothing against it.
    let plain = of("6.1.0", XdpMode::Auto, Device { unfinished: Some(false), ..without() });
    says(&plain("driver"), Level::Warn, &["uses generic XDP"]);
    says(&plain("checksums"), Level::Ok, &[]);
}

#[test]
fn tc_needs_a_kernel_that_has_it() {
    let tc = Wanted { xdp_mode: XdpMode::Tc, ..wanted() };
    let old = Host { kernel: Ok("6.1.0-50".into()), ..good_host() };
    says(&about_host(&old, &tc, "kernel"), Level::Fail, &["needs Linux 6.6", "this is 6.1"]);
    says(&about_host(&old, &wanted(), "kernel"), Level::Ok, &[]);
    let new = Host { kernel: Ok("6.6.0".into()), ..good_host() };
    says(&about_host(&new, &tc, "kernel"), Level::Ok, &[]);
}

#[test]
fn pinned_tables_of_another_size_are_said() {
    let host = Host { other_max_flows: Some(1024), ..good_host() };
    let found = about_host(&host, &wanted(), "max_flows");
    says(
        &found,
        Level::Warn,
        &["for 1024 flows", "131072 is not in force", "shunt detach --instance default"],
    );
    assert!(found.about_traffic);
}

#[test]
fn other_programs_at_tc_ingress_are_listed() {
    let ingress = vec![
        (7, Ok(Owner::Instance("blue".into()))),
        (8, Ok(Owner::Other(Some("cil".into())))),
        (9, Err("no".into())),
    ];
    let device = Device { ingress, ..good_device() };
    let words = ["free", "shunt's instance blue (program 7)", "`cil` (program 8)", "program 9"];
    says(&about(device, &wanted(), "hook"), Level::Ok, &words);
}
