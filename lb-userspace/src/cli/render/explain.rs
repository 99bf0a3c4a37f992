//! Where a client is steered, in sentences.

use lb_core::{io::FlowReset, time::Instant};

use super::{
    WIDTH,
    text::{printable, span, wrap},
};
use crate::{
    cli::palette::{Paint, Palette},
    control::model::{By, Choice, Explanation, Pin, Stage},
};

/// The answer first, then how it comes about.
pub fn explanation(of: &Explanation, palette: &Palette) -> String {
    let (paint, answer) = match &of.choice.backend {
        Some(backend) => (Paint::Good, format!("{}/{backend}", of.service)),
        None => (Paint::Bad, "nobody".to_owned()),
    };
    let mut lines =
        vec![format!("{} -> {}: {}", of.client, of.vip, palette.paint(paint, &printable(&answer)))];
    let about = [
        Some(connection(of.pinned.as_ref())),
        of.pinned.as_ref().and_then(|pin| ends(pin, of.t_ms)),
        seats(of),
        Some(table(of)),
        of.fallback
            .then(|| "none of the other backends serves: the table is made of the fallback".to_owned()),
        Some(format!("so a new connection of this client goes {}", to(&of.choice))),
        of.without
            .as_ref()
            .zip(of.choice.backend.as_ref())
            .map(|(without, gone)| format!("if {gone} left, it would go {}", to(without))),
        (of.client.is_ipv4() != of.vip.is_ipv4())
            .then(|| "client and VIP are not of one IP version: no packet of it can arrive here".to_owned()),
    ];
    lines.extend(about.iter().flatten().flat_map(|what| wrap(&printable(what), "  ", WIDTH)));
    lines.join("\n") + "\n"
}

fn connection(pinned: Option<&Pin>) -> String {
    let Some(Pin { stage, backend, alive, trial, closing, nat, address, keeps_syn, ending: _ }) = pinned
    else {
        return "no connection of it is known".to_owned();
    };
    let what = match stage {
        Stage::Flow => "a connection",
        Stage::Handshake => "a handshake",
    };
    if !alive {
        return format!("{what} of it is remembered, of a backend that is gone: it counts for nothing");
    }
    let trial = if *trial { ", admitted on trial" } else { "" };
    let closing = if *closing { ", which is being closed" } else { "" };
    let then = if *keeps_syn {
        "another SYN of it goes there too"
    } else {
        "its packets go on there, a new SYN is steered afresh"
    };
    format!("{what} of it pins it to {backend}{trial}{closing} (as {nat} -> {address}); {then}")
}

/// What becomes of a connection whose backend gets no new ones.
fn ends(pin: &Pin, now: Instant) -> Option<String> {
    let ending = pin.ending.filter(|_| pin.alive)?;
    let left = span((ending.until_ms - now).0);
    Some(match ending.cut {
        FlowReset::Never => format!("its backend gets no new ones: if it still lasts in {left}, it is reset"),
        FlowReset::AtRequest => {
            format!(
                "its backend gets no new ones: it ends at its next request or when idle, in {left} at the latest"
            )
        }
        FlowReset::Now => "its backend gets no new ones, and it is being reset".to_owned(),
    })
}

fn seats(of: &Explanation) -> Option<String> {
    let seats: Vec<String> = of
        .seats
        .iter()
        .map(|seat| match (seat.takes, seat.left) {
            (true, left) => format!("{} ({left} left)", seat.backend),
            (false, 1..) => format!("{} (cannot take one now)", seat.backend),
            (false, _) => format!("{} (none left)", seat.backend),
        })
        .collect();
    (!seats.is_empty()).then(|| format!("new connections are first offered to trials: {}", seats.join(", ")))
}

fn table(of: &Explanation) -> String {
    let Explanation { hash, slot, in_slot, .. } = of;
    let whose = in_slot.as_deref().map_or("is empty: nobody serves".to_owned(), |of| format!("is {of}'s"));
    format!("its hash is {hash}: slot {slot} of {}, which {whose}", lb_common::TABLE_SLOTS)
}

fn to(choice: &Choice) -> String {
    let backend = choice.backend.as_deref().unwrap_or("nobody");
    match (choice.by, choice.tries) {
        (By::Connection, _) => format!("to {backend}, where its connection is"),
        (By::Trial, _) => format!("to {backend}, on trial"),
        (By::Table, Some(2..)) => {
            let tries = choice.tries.unwrap_or_default();
            format!(
                "to {backend}, at the {tries}th slot: the owners of those before have no new connections now"
            )
        }
        (By::Table, _) => format!("to {backend}, by the table"),
        (By::Nobody, _) => {
            format!("to nobody ({})", choice.reason.as_deref().unwrap_or("no reason was given"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_core::snapshot::Ending;

    use crate::control::model::TrialSeat;

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
            in_slot: Some("web-2".to_owned()),
            pinned: None,
            seats: Vec::new(),
            choice: Choice { tries: Some(1), ..choice(By::Table, Some("web-2")) },
            without: Some(Choice { tries: Some(1), ..choice(By::Table, Some("web-1")) }),
        }
    }

    #[test]
    fn the_table_decides() {
        assert_eq!(
            explanation(&example(), &Palette::PLAIN),
            "\
198.51.100.7:41234 -> 203.0.113.10:80: web/web-2
  no connection of it is known
  its hash is 0x00deadbeef123456: slot 4711 of 65537, which is web-2's
  so a new connection of this client goes to web-2, by the table
  if web-2 left, it would go to web-1, by the table
"
        );
    }

    #[test]
    fn a_connection_goes_before_trial_and_table() {
        let of = Explanation {
            pinned: Some(Pin {
                stage: Stage::Flow,
                backend: "web-1".to_owned(),
                alive: true,
                trial: false,
                closing: false,
                nat: "10.0.0.2:2048".parse().expect("literal"),
                address: "10.0.0.11:8080".parse().expect("literal"),
                keeps_syn: true,
                ending: None,
            }),
            seats: vec![TrialSeat { backend: "web-3".to_owned(), left: 2, takes: true }],
            choice: choice(By::Connection, Some("web-1")),
            without: Some(choice(By::Trial, Some("web-3"))),
            ..example()
        };
        assert_eq!(
            explanation(&of, &Palette::PLAIN),
            "\
198.51.100.7:41234 -> 203.0.113.10:80: web/web-1
  a connection of it pins it to web-1 (as 10.0.0.2:2048 -> 10.0.0.11:8080); another SYN of it goes
  there too
  new connections are first offered to trials: web-3 (2 left)
  its hash is 0x00deadbeef123456: slot 4711 of 65537, which is web-2's
  so a new connection of this client goes to web-1, where its connection is
  if web-1 left, it would go to web-3, on trial
"
        );
    }

    #[test]
    fn the_end_of_a_connection_and_the_fallback_are_told() {
        let ending = |cut| Some(Ending { since_ms: Instant(2000), until_ms: Instant(62_000), cut });
        let told = |cut| {
            let of = Explanation {
                fallback: true,
                pinned: Some(Pin {
                    stage: Stage::Flow,
                    backend: "web-1 (removed)".to_owned(),
                    alive: true,
                    trial: false,
                    closing: false,
                    nat: "10.0.0.2:2048".parse().expect("literal"),
                    address: "10.0.0.11:8080".parse().expect("literal"),
                    keeps_syn: false,
                    ending: ending(cut),
                }),
                ..example()
            };
            explanation(&of, &Palette::PLAIN)
        };
        for (cut, words) in [
            (FlowReset::Never, "  its backend gets no new ones: if it still lasts in 57.0 s, it is reset\n"),
            (FlowReset::AtRequest, "it ends at its next request or when idle, in 57.0 s at the latest\n"),
            (FlowReset::Now, "  its backend gets no new ones, and it is being reset\n"),
        ] {
            assert!(told(cut).contains(words), "{}", told(cut));
            assert!(
                told(cut)
                    .contains("  none of the other backends serves: the table is made of the fallback\n")
            );
        }
    }

    #[test]
    fn nobody_has_a_reason() {
        let of = Explanation {
            in_slot: None,
            choice: Choice { reason: Some("no_backend".to_owned()), ..choice(By::Nobody, None) },
            without: None,
            ..example()
        };
        let text = explanation(&of, &Palette::PLAIN);
        assert!(text.starts_with("198.51.100.7:41234 -> 203.0.113.10:80: nobody\n"), "{text}");
        assert!(text.contains("which is empty: nobody serves\n"), "{text}");
        assert!(text.ends_with("goes to nobody (no_backend)\n"), "{text}");
    }
}
