//! The breaker of an entrance.

use lb_core::time::Millis;

use super::{Picture, backends::Found, destination_rule::Policy, entrance::Entrance};
use crate::import::{
    draft::{Entry, Origin, span},
    given::Given,
    note::NoteCode,
    policy,
};

const ISTIO: &str = "Istio";

pub(super) fn entries(
    picture: &Picture<'_>,
    entrance: &Entrance<'_, '_>,
    found: &Found,
    given: &Given<'_>,
) -> Vec<Entry> {
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
    let Some(outlier) = first.outlier else {
        let mut entries = vec![policy::without_outlier(ISTIO, "outlierDetection")];
        entries.extend(entrance.breaker.iter().cloned());
        return entries;
    };
    let mut entries = outlier;
    entries.extend(first.pool.unwrap_or_default());
    if !entries.iter().any(|entry| entry.key == "connect_timeout") {
        let origin = Origin::Default { of: ISTIO, field: "connectTimeout" };
        entries.push(Entry::new("connect_timeout", span(Millis::secs(10)), origin));
    }
    entries.extend(first.balancer.unwrap_or_default());
    entries.extend(entrance.breaker.iter().cloned());
    policy::warn_of_ceiling(&entries, found.members.len(), ISTIO, given.notes);
    entries.extend(policy::own_or_faithful(ISTIO, given));
    entries
}

fn is_same(one: &Policy, other: &Policy) -> bool {
    let values = |entries: &Option<Vec<Entry>>| -> Option<Vec<(&'static str, String)>> {
        let entries = entries.as_ref()?;
        Some(entries.iter().map(|entry| (entry.key, entry.value.to_string())).collect())
    };
    values(&one.outlier) == values(&other.outlier)
        && values(&one.pool) == values(&other.pool)
        && values(&one.balancer) == values(&other.balancer)
}
