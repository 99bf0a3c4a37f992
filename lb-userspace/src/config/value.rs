//! Scalars: names, addresses, durations, statuses, choices.

use std::{
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    path::PathBuf,
};

use lb_core::time::Millis;

use super::{
    keys,
    reader::{Node, quoted},
};
use crate::naming;

/// One year. More is a mistake, and sums stay far from an overflow.
const LONGEST: Millis = Millis::secs(365 * 24 * 3600);

/// The name of an instance, a service or a backend. It is safe in a path, a metric label or an argument.
pub(super) fn name(node: &Node<'_>) -> Option<String> {
    match node.as_str() {
        Some(text) => checked_name(node, text),
        None => node.expected("a name", &format!("{} = \"blue\"", node.key())),
    }
}

pub(super) fn checked_name(node: &Node<'_>, text: &str) -> Option<String> {
    if naming::is_name(text) {
        return Some(text.to_owned());
    }
    node.reject(format!("{} is not a name", quoted(text)), naming::A_NAME)
}

/// A network interface, by the rules of the kernel (`dev_valid_name`).
pub(super) fn interface(node: &Node<'_>) -> Option<String> {
    let Some(text) = node.as_str() else {
        return node.expected("the name of an interface", "interfaces = [\"eth0\"]");
    };
    let fits = (1..16).contains(&text.len()) && text != "." && text != "..";
    if fits && text.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '/' | ':')) {
        return Some(text.to_owned());
    }
    node.reject(
        format!("{} cannot be the name of an interface", quoted(text)),
        "`ip link` lists the interfaces; a name has 1 to 15 characters, no blank, no `/`, no `:`",
    )
}

/// A path that does not depend on the directory in which the daemon was started.
pub(super) fn absolute_path(node: &Node<'_>, example: &str, longest: usize) -> Option<PathBuf> {
    let Some(text) = node.as_str() else { return node.expected("a path", example) };
    if !text.starts_with('/') || text.chars().any(char::is_control) {
        return node.reject(
            format!("{} is not an absolute path", quoted(text)),
            format!("write for example `{example}`"),
        );
    }
    if text.len() > longest {
        return node.reject(
            format!("the path has {} bytes, at most {longest} are possible", text.len()),
            "choose a shorter path",
        );
    }
    Some(PathBuf::from(text))
}

/// One of a few words.
pub(super) fn choice<T: Copy>(node: &Node<'_>, choices: &[(&'static str, T)]) -> Option<T> {
    let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
    let list = format!("`\"{}\"`", words.join("\"`, `\""));
    let Some(text) = node.as_str() else {
        return node.expected(&format!("one of {list}"), &format!("{} = \"{}\"", node.key(), words[0]));
    };
    if let Some((_, value)) = choices.iter().find(|(word, _)| *word == text) {
        return Some(*value);
    }
    let help = match keys::nearest(text, &words) {
        Some(meant) => format!("did you mean `\"{meant}\"`?"),
        None => format!("write one of {list}"),
    };
    node.reject(format!("{} is not a value of `{}`", quoted(text), node.key()), help)
}

/// An address and a port. `example` is a whole line.
pub(super) fn endpoint(node: &Node<'_>, example: &str) -> Option<SocketAddr> {
    let Some(text) = node.as_str() else { return node.expected("an address with a port", example) };
    let example = format!("write an address and a port, for example `{example}`");
    without_zone(node, text)?;
    let address: SocketAddr = match text.parse() {
        Ok(address) => address,
        Err(_) => {
            let message = match (text.parse::<IpAddr>(), text.rsplit_once(':')) {
                (Ok(IpAddr::V6(v6)), _) => {
                    let help = format!("write it in brackets, for example `\"[{v6}]:80\"`");
                    return node.reject(format!("{} has no port", quoted(text)), help);
                }
                (Ok(IpAddr::V4(_)), _) => format!("{} has no port", quoted(text)),
                (Err(_), Some((host, port))) if host.parse::<IpAddr>().is_ok() => {
                    format!("{} is not a port", quoted(port))
                }
                (Err(_), Some((host, _))) if host.contains(|c: char| c.is_ascii_alphabetic()) => {
                    format!("{} is not an address; names are not resolved", quoted(host))
                }
                (Err(_), Some(_) | None) => format!("{} is not an address with a port", quoted(text)),
            };
            return node.reject(message, example);
        }
    };
    unicast(node, address.ip())?;
    if address.port() == 0 {
        return node.reject("port 0 cannot be used", "write a port from 1 to 65535");
    }
    Some(address)
}

/// An address of this host.
pub(super) fn address(node: &Node<'_>) -> Option<IpAddr> {
    let Some(text) = node.as_str() else {
        return node.expected("an address", "nat_addresses = [\"10.0.0.2\"]");
    };
    without_zone(node, text)?;
    match text.parse() {
        Ok(address) => unicast(node, address),
        Err(_) => node.reject(
            format!("{} is not an address", quoted(text)),
            "write an address without a port, for example `\"10.0.0.2\"`",
        ),
    }
}

/// Without this a zone would be lost in silence.
fn without_zone(node: &Node<'_>, text: &str) -> Option<()> {
    let Some((_, zone)) = text.split_once('%') else { return Some(()) };
    let zone = zone.split(']').next().unwrap_or(zone);
    let help = format!(
        "remove {}: only link-local addresses have zones, and Shunt takes none",
        quoted(&format!("%{zone}"))
    );
    node.reject(format!("{} names a zone", quoted(text)), help)
}

fn unicast(node: &Node<'_>, address: IpAddr) -> Option<IpAddr> {
    let Some(kind) = naming::unfit_host(address) else { return Some(address) };
    node.reject(format!("{address} is {kind}"), "write the address of one host")
}

pub(super) fn percent(node: &Node<'_>) -> Option<u32> {
    node.integer_such_as(50, 0..=100)
}

/// A span of time: `"500ms"`, `"5s"`, `"1m30s"`, `"2h"`.
pub(super) fn duration(node: &Node<'_>, least: Millis) -> Option<Millis> {
    let Some(text) = node.as_str() else {
        return node.expected("a duration", &format!("{} = \"5s\"", node.key()));
    };
    match parse_duration(text) {
        None => node.reject(
            format!("{} is not a duration", quoted(text)),
            "write whole numbers with `h`, `m`, `s` or `ms`, for example `\"5s\"`, `\"1m30s\"`, `\"500ms\"`",
        ),
        Some(span) if span < least => node.reject(
            format!("{} is too short", quoted(text)),
            format!("write at least `\"{}\"`", shown(least)),
        ),
        Some(span) if span > LONGEST => {
            node.reject(format!("{} is too long", quoted(text)), "write at most one year, `\"8760h\"`")
        }
        Some(span) => Some(span),
    }
}

/// Whole numbers with `h`, `m`, `s` or `ms`, each unit at most once, larger units first: `"1m30s"`. Saturates.
pub fn parse_duration(text: &str) -> Option<Millis> {
    // `ms` comes before `m`, because the first unit that fits is used.
    const UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];
    let (mut rest, mut total, mut above) = (text, 0u64, u64::MAX);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        let (unit, scale) = UNITS.into_iter().find(|(unit, _)| rest[digits..].starts_with(unit))?;
        if scale >= above {
            return None;
        }
        total = total.saturating_add(number.saturating_mul(scale));
        rest = &rest[digits + unit.len()..];
        above = scale;
    }
    (above != u64::MAX).then_some(Millis(total))
}

/// The text that [`duration`] reads as this span.
pub fn shown(span: Millis) -> String {
    match span.0 {
        ms if ms > 0 && ms.is_multiple_of(3_600_000) => format!("{}h", ms / 3_600_000),
        ms if ms > 0 && ms.is_multiple_of(60_000) => format!("{}m", ms / 60_000),
        ms if ms.is_multiple_of(1000) => format!("{}s", ms / 1000),
        ms => format!("{ms}ms"),
    }
}

/// A multiple of the standard deviation, in thousandths: `1.9`. An integer from 100 on means thousandths, as in Envoy,
/// because no detector would trip at such a multiple.
pub(super) fn factor(node: &Node<'_>) -> Option<u32> {
    const MOST: u32 = 10_000;
    const HELP: &str = "write at most three decimals and at most 10, for example `1.9`";
    let thousandths = if node.is_integer() {
        match node.integer(0..=MOST)? {
            whole @ 0..100 => whole * 1000,
            thousandths => thousandths,
        }
    } else {
        let Some(text) = node.as_float() else {
            return node.expected("a number", &format!("{} = 1.9", node.key()));
        };
        match parse_thousandths(text) {
            Some(thousandths) => thousandths,
            None => return node.reject(format!("{} is not a factor", quoted(text)), HELP),
        }
    };
    if thousandths > MOST {
        return node.reject("the factor is too large", HELP);
    }
    Some(thousandths)
}

/// `1.9` as 1900. No sign, no exponent.
fn parse_thousandths(text: &str) -> Option<u32> {
    let (whole, fraction) = text.split_once('.')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 3 {
        return None;
    }
    format!("{whole}{fraction:0<3}").parse().ok()
}

/// Sets of statuses: `["200-399", "418"]`.
pub(super) fn statuses(node: &Node<'_>, example: &str) -> Option<Vec<RangeInclusive<u16>>> {
    let items = node.items("an array of statuses", example)?;
    if items.is_empty() {
        return node.reject("no status is named", format!("write for example `{example}`"));
    }
    // Not `collect` into an Option: it would stop at the first that is wrong.
    let ranges: Vec<_> = items.iter().map(status_range).collect();
    ranges.into_iter().collect()
}

fn status_range(node: &Node<'_>) -> Option<RangeInclusive<u16>> {
    const ALL: RangeInclusive<u32> = 100..=599;
    const HELP: &str = "write a status from 100 to 599 or a range of them, `\"204\"` or `\"200-399\"`";
    if node.is_integer() {
        return node.integer(ALL).map(|status| status as u16..=status as u16);
    }
    let Some(text) = node.as_str() else { return node.reject("this is not a status", HELP) };
    let status = |text: &str| -> Option<u16> {
        let digits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|&status| digits && ALL.contains(&u32::from(status)))
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (status(first), status(last)) {
        (Some(first), Some(last)) if first <= last => Some(first..=last),
        (Some(first), Some(last)) => node.reject(
            format!("{} runs backwards", quoted(text)),
            format!("did you mean `\"{last}-{first}\"`?"),
        ),
        (Some(_) | None, Some(_) | None) => node.reject(format!("{} is not a status", quoted(text)), HELP),
    }
}

/// A range of ports as `"1024-32767"`.
pub(super) fn nat_ports(node: &Node<'_>) -> Option<RangeInclusive<u16>> {
    const EXAMPLE: &str = "nat_ports = \"1024-32767\"";
    let Some(text) = node.as_str() else { return node.expected("a range of ports", EXAMPLE) };
    let port = |text: &str| -> Option<u16> {
        text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
    };
    match text.split_once('-').map(|(first, last)| (port(first), port(last))) {
        Some((Some(first), Some(last))) if first > last => node.reject(
            format!("{} runs backwards", quoted(text)),
            format!("did you mean `\"{last}-{first}\"`?"),
        ),
        Some((Some(first), Some(_))) if first < 1024 => node.reject(
            format!("{} takes ports below 1024", quoted(text)),
            "the host's own services use these; start at 1024 or above",
        ),
        Some((Some(first), Some(last))) => Some(first..=last),
        Some((Some(_) | None, Some(_) | None)) | None => node.reject(
            format!("{} is not a range of ports", quoted(text)),
            format!("write the first and the last port, for example `{EXAMPLE}`"),
        ),
    }
}
