//! Names of backends.
//!
//! A backend with another name is another backend for the daemon, so each keeps the name that it has in the file. A new
//! one has the name of its pod. Pods of a StatefulSet have the name of the pod before them: while both are there, the
//! newer one gets a suffix.

use std::collections::{BTreeMap, BTreeSet};

use crate::{files::Backend, sets::Candidate};

/// The longest name that the daemon takes.
const LONGEST: usize = 64;

/// The backends of a set. `before`: those in the file.
pub(crate) fn named(set: &[Candidate], before: &[Backend]) -> Vec<Backend> {
    let known: BTreeMap<_, _> = before.iter().map(|of| ((of.id.as_deref(), of.address), &of.name)).collect();
    let kept = |of: &Candidate| known.get(&(of.id.as_deref(), of.address)).map(|name| (*name).clone());
    let mut taken: BTreeSet<String> = set.iter().filter_map(kept).collect();
    let backend = |of: &Candidate| {
        let name = kept(of).unwrap_or_else(|| {
            let name = fresh(of, &taken);
            taken.insert(name.clone());
            name
        });
        Backend { name, address: of.address, state: of.state, id: of.id.clone() }
    };
    set.iter().map(backend).collect()
}

fn fresh(of: &Candidate, taken: &BTreeSet<String>) -> String {
    let own = match &of.pod {
        Some(pod) => short(pod),
        None => plain(&of.address.to_string()),
    };
    if !taken.contains(&own) {
        return own;
    }
    // The identity says which one it is, or else the address.
    let other = of.id.clone().unwrap_or_else(|| of.address.to_string());
    let suffix = format!("{:08x}", fnv(&other) as u32);
    let stem: String = own.chars().take(LONGEST - 1 - suffix.len()).collect();
    let mut names =
        (0..).map(|n| if n == 0 { format!("{stem}.{suffix}") } else { format!("{stem}.{suffix}{n}") });
    names.find(|name| !taken.contains(name)).expect("there are more numbers than names")
}

/// A pod's name, with its end as a number where it is too long.
fn short(pod: &str) -> String {
    let pod = plain(pod);
    if pod.len() <= LONGEST {
        return pod;
    }
    let suffix = format!("{:016x}", fnv(&pod));
    format!("{}-{suffix}", &pod[..LONGEST - 1 - suffix.len()])
}

/// In the characters of a name. `[fd00::1]:80` is `ep-fd00--1-80`.
fn plain(text: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let text: String = text.replace(['[', ']'], "").chars().map(|c| if fits(c) { c } else { '-' }).collect();
    let is_address = text.starts_with(|c: char| c.is_ascii_digit()) || text.contains("--");
    match text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        true if !is_address => text,
        _ => format!("ep-{text}"),
    }
}

/// FNV-1a, 64 bits.
fn fnv(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sets::State;

    fn candidate(address: &str, pod: Option<&str>, id: Option<&str>) -> Candidate {
        Candidate {
            address: address.parse().expect("literal"),
            state: State::Ready,
            id: id.map(str::to_owned),
            pod: pod.map(str::to_owned),
        }
    }

    fn names(set: &[Backend]) -> Vec<&str> {
        set.iter().map(|of| of.name.as_str()).collect()
    }

    #[test]
    fn a_pod_gives_its_name_and_keeps_it() {
        let old = candidate("10.0.0.1:80", Some("web-0"), Some("u1"));
        let before = named(std::slice::from_ref(&old), &[]);
        assert_eq!(names(&before), ["web-0"]);
        let new = candidate("10.0.0.2:80", Some("web-0"), Some("u2"));
        let both = named(&[old, new.clone()], &before);
        assert_eq!(both[0].name, "web-0");
        assert!(both[1].name.starts_with("web-0.") && both[1].name.len() == 14, "{}", both[1].name);
        // The older one has gone, and the newer one is the same backend as before.
        assert_eq!(named(std::slice::from_ref(&new), &both)[0].name, both[1].name);
        // At the same address with another identity it is a new one.
        let third = candidate("10.0.0.2:80", Some("web-0"), Some("u3"));
        assert_eq!(names(&named(&[third], &both)), ["web-0"]);
    }

    #[test]
    fn without_a_pod_the_address_is_the_name() {
        let set = [candidate("10.0.0.1:80", None, None), candidate("[fd00::1]:80", None, None)];
        assert_eq!(names(&named(&set, &[])), ["ep-10.0.0.1-80", "ep-fd00--1-80"]);
    }

    #[test]
    fn names_fit() {
        let long = "x".repeat(200);
        let (a, b) = (format!("{long}a"), format!("{long}b"));
        let set = [
            candidate("10.0.0.1:80", Some(&a), Some("1")),
            candidate("10.0.0.2:80", Some(&b), Some("2")),
            candidate("10.0.0.3:80", Some(&a), Some("3")),
            candidate("10.0.0.4:80", Some("-odd/"), Some("4")),
        ];
        let named = named(&set, &[]);
        let unique: BTreeSet<&str> = names(&named).into_iter().collect();
        assert!(unique.len() == 4 && unique.iter().all(|name| name.len() <= LONGEST), "{unique:?}");
        assert!(unique.contains("ep--odd-"), "{unique:?}");
    }
}
