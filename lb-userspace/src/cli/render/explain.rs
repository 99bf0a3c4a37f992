//! The backend that a client's connection goes to, in sentences.

use lb_common::reason::Reason;
use lb_core::{io::FlowReset, time::Instant};

use super::{
    WIDTH,
    text::{printable, span, wrap},
};
use crate::{
    cli::palette::{Paint, Palette},
    control::model::{By, Choice, Explanation, KnownConnection, Stage, Way},
};

/// The backend first, then the reasons.
pub fn explanation(of: &Explanation, palette: &Palette) -> String {
    let (paint, answer) = match &of.choice.backend {
        Some(backend) => (Paint::Good, format!("{}/{backend}", of.service)),
        None => (Paint::Bad, "no backend".to_owned()),
    };
    let mut lines =
        vec![format!("{} -> {}: {}", of.client, of.vip, palette.paint(paint, &printable(&answer)))];
    // Then no backend is chosen at all.
    let refused = of.choice.reason.as_deref().and_then(refused);
    let chooses = refused.is_none();
    let about = [
        Some(connection(of.connection.as_ref())),
        of.connection.as_ref().and_then(|known| drain(known, of.t_ms)),
        of.only_by.as_ref().map(only_by),
        trial_slots(of).filter(|_| chooses),
        chooses.then(|| table(of)),
        (chooses && of.fallback)
            .then(|| "no other backend serves, so the Maglev table consists of the fallback".to_owned()),
        Some(match refused {
            Some(because) => {
                let reason = of.choice.reason.as_deref().unwrap_or_default();
                format!("the program drops a SYN of this client: {because} ({reason})")
            }
            None => format!("a new connection of this client goes {}", to(&of.choice)),
        }),
        of.if_removed
            .as_ref()
            .zip(of.choice.backend.as_ref())
            .map(|(next, gone)| format!("if {gone} were removed, it would go {}", to(next))),
        (of.client.is_ipv4() != of.vip.is_ipv4()).then(|| {
            "client and VIP have different IP versions, so no packet of this client can arrive here"
                .to_owned()
        }),
    ];
    lines.extend(about.iter().flatten().flat_map(|what| wrap(&printable(what), "  ", WIDTH)));
    lines.join("\n") + "\n"
}

/// Why the program drops a SYN before it chooses a backend. `reason`: a drop reason.
fn refused(reason: &str) -> Option<&'static str> {
    Some(match Reason::ALL.into_iter().find(|known| known.name() == reason)? {
        Reason::Martian => "no client has this address: it is a VIP's, or not an address of one host",
        Reason::Denied => "the service does not accept connections of this source",
        Reason::SourceShare => "its source prefix holds more than max_source_share",
        Reason::Malformed
        | Reason::Fragment
        | Reason::IpOptions
        | Reason::Ttl
        | Reason::Flags
        | Reason::NoBackend
        | Reason::NatPorts
        | Reason::Neighbour
        | Reason::NoFlow
        | Reason::TableFull
        | Reason::Swapping
        | Reason::Hairpin
        | Reason::IcmpRate
        | Reason::SynRate
        | Reason::Ejected
        | Reason::IcmpStray
        | Reason::PathMtu
        | Reason::Full
        | Reason::Unproven => return None,
    })
}

fn only_by(Way { interface, vlan }: &Way) -> String {
    let vlan = vlan.map(|vlan| format!(", VLAN {vlan}")).unwrap_or_default();
    format!(
        "its address is a backend's: what follows is true if it comes by {interface}{vlan}, and by any other way the \
         program drops its SYN (martian)"
    )
}

fn connection(known: Option<&KnownConnection>) -> String {
    let Some(KnownConnection { stage, backend, valid, trial, closing, nat, address, takes_syn, drain: _ }) =
        known
    else {
        return "the flow table has no connection of this client".to_owned();
    };
    let what = match stage {
        Stage::Established => "a connection",
        Stage::Handshake => "a half-open handshake",
    };
    if !valid {
        return format!("it has {what} with a backend that no longer exists, so the program ignores it");
    }
    let trial = if *trial { ", a trial" } else { "" };
    let closing = if *closing { ", which is closing" } else { "" };
    let then = if *takes_syn {
        "another SYN of this tuple goes there too"
    } else {
        "its packets go there, but a new SYN is a new connection"
    };
    format!("it has {what} with {backend}{trial}{closing} ({nat} -> {address}); {then}")
}

/// Describes the drain of a connection's backend.
fn drain(known: &KnownConnection, now: Instant) -> Option<String> {
    let drain = known.drain.filter(|_| known.valid)?;
    let left = span((drain.until_ms - now).0);
    Some(match drain.flow_reset {
        FlowReset::Never => format!(
            "its backend gets no new connections: Shunt resets this one if it is still open in {left}"
        ),
        FlowReset::AtRequest => {
            format!(
                "its backend gets no new connections: Shunt resets this one at its next request or when idle, in {left} at \
                 the latest"
            )
        }
        FlowReset::Now => "its backend gets no new connections: Shunt is resetting this one".to_owned(),
    })
}

fn trial_slots(of: &Explanation) -> Option<String> {
    let slots: Vec<String> = of
        .trial_slots
        .iter()
        .map(|slot| match (slot.available, slot.trials_left) {
            (true, left) => format!("{} (trials left: {left})", slot.backend),
            (false, 1..) => format!("{} (cannot take one now)", slot.backend),
            (false, _) => format!("{} (no trial left)", slot.backend),
        })
        .collect();
    (!slots.is_empty()).then(|| format!("half-open backends get new connections first: {}", slots.join(", ")))
}

fn table(of: &Explanation) -> String {
    let Explanation { hash, slot, slot_backend, .. } = of;
    let content = slot_backend
        .as_deref()
        .map_or("is empty, because no backend serves".to_owned(), |of| format!("belongs to {of}"));
    format!("its hash {hash} selects slot {slot} of {}, which {content}", lb_common::TABLE_SLOTS)
}

fn to(choice: &Choice) -> String {
    let backend = choice.backend.as_deref().unwrap_or("no backend");
    match (choice.by, choice.tries) {
        (By::Connection, _) => format!("to {backend}, which has its connection"),
        (By::Trial, _) => format!("to {backend}, as a trial"),
        (By::Table, Some(2..)) => {
            let tries = choice.tries.unwrap_or_default();
            format!(
                "to {backend}, at slot {tries} of those it tries: the backends of the slots before get no new connections"
            )
        }
        (By::Table, _) => format!("to {backend}, by the Maglev table"),
        (By::None, _) => {
            format!("to no backend ({})", choice.reason.as_deref().unwrap_or("no reason was given"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_core::snapshot::Drain;

    use crate::control::model::TrialSlot;

    fn choice(by: By, backend: Option<&str>) -> Choice {
        Choice { by, backend: backend.map(str::to_owned), tries: None, reason: None }
    }

    fn example() -> Explanation {
        Explanation {
            service: "web".to_owned(),
            vip: "203.0.113.10:80".parse().expect("literal"),
            client: "198.51.100.7:41234".parse().expect("literal"),
            t_ms: Instant(5000),
            fallback: false,
            hash: "0x00deadbeef123456".to_owned(),
            slot: 4711,
            slot_backend: Some("web-2".to_owned()),
            connection: None,
            only_by: None,
            trial_slots: Vec::new(),
            choice: Choice { tries: Some(1), ..choice(By::Table, Some("web-2")) },
            if_removed: Some(Choice { tries: Some(1), ..choice(By::Table, Some("web-1")) }),
        }
    }

    #[test]
    fn the_maglev_table_decides() {
        assert_eq!(
            explanation(&example(), &Palette::PLAIN),
            "\
198.51.100.7:41234 -> 203.0.113.10:80: web/web-2
  the flow table has no connection of this client
  its hash 0x00deadbeef123456 selects slot 4711 of 65537, which belongs to web-2
  a new connection of this client goes to web-2, by the Maglev table
  if web-2 were removed, it would go to web-1, by the Maglev table
"
        );
    }

    #[test]
    fn a_connection_comes_before_trials_and_table() {
        let of = Explanation {
            connection: Some(KnownConnection {
                stage: Stage::Established,
                backend: "web-1".to_owned(),
                valid: true,
                trial: false,
                closing: false,
                nat: "10.0.0.2:2048".parse().expect("literal"),
                address: "10.0.0.11:8080".parse().expect("literal"),
                takes_syn: true,
                drain: None,
            }),
            trial_slots: vec![TrialSlot { backend: "web-3".to_owned(), trials_left: 2, available: true }],
            choice: choice(By::Connection, Some("web-1")),
            if_removed: Some(choice(By::Trial, Some("web-3"))),
            ..example()
        };
        assert_eq!(
            explanation(&of, &Palette::PLAIN),
            "\
198.51.100.7:41234 -> 203.0.113.10:80: web/web-1
  it has a connection with web-1 (10.0.0.2:2048 -> 10.0.0.11:8080); another SYN of this tuple goes
  there too
  half-open backends get new connections first: web-3 (trials left: 2)
  its hash 0x00deadbeef123456 selects slot 4711 of 65537, which belongs to web-2
  a new connection of this client goes to web-1, which has its connection
  if web-1 were removed, it would go to web-3, as a trial
"
        );
    }

    #[test]
    fn the_drain_of_a_connection_and_the_fallback_are_shown() {
        let drain =
            |flow_reset| Some(Drain { since_ms: Instant(2000), until_ms: Instant(62_000), flow_reset });
        let text = |cut| {
            let of = Explanation {
                fallback: true,
                connection: Some(KnownConnection {
                    stage: Stage::Established,
                    backend: "web-1 (removed)".to_owned(),
                    valid: true,
                    trial: false,
                    closing: false,
                    nat: "10.0.0.2:2048".parse().expect("literal"),
                    address: "10.0.0.11:8080".parse().expect("literal"),
                    takes_syn: false,
                    drain: drain(cut),
                }),
                ..example()
            };
            explanation(&of, &Palette::PLAIN)
        };
        for (cut, words) in [
            (
                FlowReset::Never,
                "  its backend gets no new connections: Shunt resets this one if it is still open in 57 s\n",
            ),
            (
                FlowReset::AtRequest,
                "resets this one at its next request or when idle, in 57\n  s at the latest\n",
            ),
            (FlowReset::Now, "  its backend gets no new connections: Shunt is resetting this one\n"),
        ] {
            assert!(text(cut).contains(words), "{}", text(cut));
            assert!(
                text(cut)
                    .contains("  no other backend serves, so the Maglev table consists of the fallback\n")
            );
        }
    }

    #[test]
    fn a_source_that_the_program_drops_gets_no_backend() {
        for (reason, because) in [
            ("martian", "no client has this address: it is a VIP's, or not an address of one host"),
            ("denied", "the service does not accept connections of this source"),
            ("source_share", "its source prefix holds more than max_source_share"),
        ] {
            let of = Explanation {
                choice: Choice { reason: Some(reason.to_owned()), ..choice(By::None, None) },
                if_removed: None,
                ..example()
            };
            let text = explanation(&of, &Palette::PLAIN);
            let words: Vec<_> = text.split_whitespace().collect();
            let drops = format!("the program drops a SYN of this client: {because} ({reason})");
            assert_eq!(
                words.join(" "),
                "198.51.100.7:41234 -> 203.0.113.10:80: no backend the flow table has no connection of this client "
                    .to_owned()
                    + &drops
            );
        }
    }

    #[test]
    fn a_backend_is_a_client_by_its_own_way() {
        let way = |vlan| Way { interface: "eth1".to_owned(), vlan };
        let text =
            |vlan| explanation(&Explanation { only_by: Some(way(vlan)), ..example() }, &Palette::PLAIN);
        let said = "its address is a backend's: what follows is true if it comes by eth1";
        assert!(text(None).contains(&format!("{said}, and by any")), "{}", text(None));
        assert!(text(Some(7)).contains(&format!("{said}, VLAN 7, and")), "{}", text(Some(7)));
        assert!(text(None).contains("goes to web-2, by the Maglev table"));
    }

    #[test]
    fn no_backend_has_a_reason() {
        let of = Explanation {
            slot_backend: None,
            choice: Choice { reason: Some("no_backend".to_owned()), ..choice(By::None, None) },
            if_removed: None,
            ..example()
        };
        let text = explanation(&of, &Palette::PLAIN);
        assert!(text.starts_with("198.51.100.7:41234 -> 203.0.113.10:80: no backend\n"), "{text}");
        assert!(text.contains("which is empty, because no backend serves\n"), "{text}");
        assert!(text.ends_with("goes to no backend (no_backend)\n"), "{text}");
    }
}
