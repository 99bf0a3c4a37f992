//! Rules for the names and addresses of backends, wherever they are written: in the configuration or in a discovery file.

use std::net::IpAddr;

const LONGEST: usize = 64;

/// The rule of [`is_name`], as a remedy.
pub const A_NAME: &str = "use at most 64 letters, digits, `-`, `_` and `.`, a letter or digit first";

/// Whether it is safe in a path, a metric label or an argument.
pub fn is_name(text: &str) -> bool {
    let inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(inside) && text.len() <= LONGEST
}

/// Why an address is not that of one host that frames can be sent to.
pub fn unfit_host(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(v4) if v4.octets()[0] == 0 => Some("not the address of a host"),
        IpAddr::V4(v4) if v4.is_broadcast() => Some("the broadcast address"),
        IpAddr::V6(v6) if v6.is_unspecified() => Some("not the address of a host"),
        IpAddr::V4(_) | IpAddr::V6(_) if address.is_loopback() => {
            Some("the loopback of this node, which no frame reaches")
        }
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Some("an IPv4 address written as IPv6"),
        // Such an address does not say on which link it is.
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("a link-local address"),
        IpAddr::V4(_) | IpAddr::V6(_) if address.is_multicast() => Some("a multicast address"),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_at_most_64_plain_characters() {
        let longest = "x".repeat(LONGEST);
        assert!(is_name("web-1") && is_name("1") && is_name("a.b_c") && is_name(&longest));
        for wrong in ["", "-a", ".a", "a b", "a/b", "ä", &format!("{longest}x")] {
            assert!(!is_name(wrong), "{wrong:?}");
        }
    }
}
