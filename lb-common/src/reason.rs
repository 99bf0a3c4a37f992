//! Drop reasons: why a frame for a VIP was not forwarded.

/// Every reason, in one list. The number is the index into `DROPS`, at
/// `service id × Reason::COUNT + reason`.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// Lengths in the headers contradict each other or the frame.
    Malformed = 0,
    /// First fragment of a datagram for the VIP, or the only one.
    Fragment = 1,
    /// IPv4 options; more than two IPv6 extension headers, or one that sends the datagram elsewhere.
    IpOptions = 2,
    /// TTL would reach 0.
    Ttl = 3,
    /// A source address that no client can have: a VIP's, a backend's by another interface than the
    /// backend's, or none at all.
    Martian = 4,
    /// TCP flags that no stack sends.
    Flags = 5,
    /// No backend may serve.
    NoBackend = 6,
    /// Every NAT port that was tried is taken.
    NatPorts = 7,
    /// The next hop is not resolved: that of every backend that was tried, or of the flow's backend.
    Neighbour = 8,
    /// Not a SYN, and of no known connection. The program answers with a reset.
    NoFlow = 9,
    /// The flow tables refused an entry.
    TableFull = 10,
    /// The table still names a backend that was just ejected, on every try. The client's next SYN finds the
    /// new table.
    Swapping = 11,
    /// The service does not take connections of this source.
    Denied = 12,
    /// The client is the chosen backend, or has its address: after translation the frame would go to its own
    /// source.
    Hairpin = 13,
    /// More ICMP errors about connections of the service than may pass.
    IcmpRate = 14,
    /// New connections come faster on this CPU than `max_new_flows_per_second` allows.
    SynRate = 15,
    /// The connection's backend is ejected or drains, and the program resets its connections, or answers a SYN on
    /// one of them.
    Ejected = 16,
    /// The client's source prefix holds more than `max_source_share` of a flow table or of a backend's NAT
    /// ports, which are three quarters full.
    SourceShare = 17,
    /// An ICMP error about a segment that the backend cannot have in flight.
    IcmpStray = 18,
    /// An ICMP error that reports a smaller path MTU than `min_path_mtu`.
    PathMtu = 19,
    /// The service, or every backend that may serve, has reached `max_connections`.
    Full = 20,
    /// Half-open handshakes hold half of `max_connections`, and the client has not proven its address. The program
    /// answers with a challenge.
    Unproven = 21,
}

impl Reason {
    pub const COUNT: usize = 22;

    pub const ALL: [Self; Self::COUNT] = [
        Self::Malformed,
        Self::Fragment,
        Self::IpOptions,
        Self::Ttl,
        Self::Martian,
        Self::Flags,
        Self::NoBackend,
        Self::NatPorts,
        Self::Neighbour,
        Self::NoFlow,
        Self::TableFull,
        Self::Swapping,
        Self::Denied,
        Self::Hairpin,
        Self::IcmpRate,
        Self::SynRate,
        Self::Ejected,
        Self::SourceShare,
        Self::IcmpStray,
        Self::PathMtu,
        Self::Full,
        Self::Unproven,
    ];

    /// The reason with this number.
    #[inline(always)]
    pub const fn from_number(number: u8) -> Option<Self> {
        if number as usize >= Self::COUNT {
            return None;
        }
        // SAFETY: the numbers of the reasons are dense, and a reason is its number.
        Some(unsafe { core::mem::transmute::<u8, Self>(number) })
    }

    /// Its name in status, metrics and events.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Fragment => "fragment",
            Self::IpOptions => "ip_options",
            Self::Ttl => "ttl",
            Self::Martian => "martian",
            Self::Flags => "flags",
            Self::NoBackend => "no_backend",
            Self::NatPorts => "nat_ports",
            Self::Neighbour => "neighbour",
            Self::NoFlow => "no_flow",
            Self::TableFull => "table_full",
            Self::Swapping => "swapping",
            Self::Denied => "denied",
            Self::Hairpin => "hairpin",
            Self::IcmpRate => "icmp_rate",
            Self::SynRate => "syn_rate",
            Self::Ejected => "ejected",
            Self::SourceShare => "source_share",
            Self::IcmpStray => "icmp_stray",
            Self::PathMtu => "path_mtu",
            Self::Full => "full",
            Self::Unproven => "unproven",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_name_of_its_own() {
        for (i, reason) in Reason::ALL.into_iter().enumerate() {
            let name = reason.name();
            assert!(!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
            assert!(Reason::ALL[..i].iter().all(|other| other.name() != name), "{name}");
        }
        assert_eq!((Reason::Malformed.name(), Reason::Unproven.name()), ("malformed", "unproven"));
    }

    #[test]
    fn numbers_are_dense() {
        for (i, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, i);
            assert_eq!(Reason::from_number(i as u8), Some(reason));
        }
        assert_eq!(Reason::from_number(Reason::COUNT as u8), None);
    }
}
