//! The breaker of an entrance, and its limits.

use lb_core::time::Millis;

use super::{
    Picture,
    backends::Found,
    destination_rule::{Keys, Policy},
    entrance::Entrance,
};
use crate::{
    config::MAX_CONNECTIONS,
    import::{
        draft::{Entry, Origin, span},
        given::Given,
        note::NoteCode,
        policy,
    },
};

const ISTIO: &str = "Istio";

/// Keys of the breaker, and keys of the service.
pub(super) fn entries(
    picture: &Picture<'_>,
    entrance: &Entrance<'_, '_>,
    found: &Found,
    given: &Given<'_>,
) -> Keys {
    let mut policies = entrance.targets.iter().map(|target| {
        let rule = picture.rule(&target.service.id);
        let policy = rule.map(|rule| rule.policy(target.subset, target.port.port));
        (target, policy.unwrap_or_default())
    });
    let (_, first) = policies.next().expect("an entrance has a target");
    for (target, other) in policies {
        if !is_same(&first, &other) {
            let message = "destinations of one route have rules of their own; the first one's holds for all";
            target.service.field.note(NoteCode::NotCarried, message, "");
        }
    }
    let (pool, balancer) = (first.pool.unwrap_or_default(), first.balancer.unwrap_or_default());
    let service = summed(pool.service, entrance.targets.len());
    let service = service.into_iter().chain(balancer.service).collect();
    let Some(outlier) = first.outlier else {
        let mut breaker = vec![policy::without_outlier(ISTIO, "outlierDetection")];
        breaker.extend(entrance.breaker.iter().cloned());
        return Keys { breaker, service };
    };
    let mut entries = outlier;
    entries.extend(pool.breaker);
    if !entries.iter().any(|entry| entry.key == "connect_timeout") {
        let origin = Origin::Default { of: ISTIO, field: "connectTimeout" };
        entries.push(Entry::new("connect_timeout", span(Millis::secs(10)), origin));
    }
    entries.extend(balancer.breaker);
    entries.extend(entrance.breaker.iter().cloned());
    policy::warn_of_ceiling(&entries, found.members.len(), ISTIO, given.notes);
    entries.extend(policy::own_or_faithful(ISTIO, given));
    Keys { breaker: entries, service }
}

/// In Istio each destination has the limit for itself.
fn summed(service: Vec<Entry>, destinations: usize) -> Vec<Entry> {
    let destinations = i64::try_from(destinations).unwrap_or(1);
    let sum = |entry: Entry| match entry.value.as_integer().filter(|_| destinations > 1) {
        Some(most) => {
            let differs = "The sum over the destinations: in Istio each has the limit for itself";
            Entry { value: most.saturating_mul(destinations).min(MAX_CONNECTIONS.into()).into(), ..entry }
                .differs(differs)
        }
        None => entry,
    };
    service.into_iter().map(sum).collect()
}

fn is_same(one: &Policy, other: &Policy) -> bool {
    let values = |entries: &[Entry]| -> Vec<(&'static str, String)> {
        entries.iter().map(|entry| (entry.key, entry.value.to_string())).collect()
    };
    let keys = |of: &Option<Keys>| of.as_ref().map(|of| (values(&of.breaker), values(&of.service)));
    one.outlier.as_deref().map(values) == other.outlier.as_deref().map(values)
        && keys(&one.pool) == keys(&other.pool)
        && keys(&one.balancer) == keys(&other.balancer)
}
