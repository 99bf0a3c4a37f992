//! `outlierDetection` of a DestinationRule.

use lb_core::time::Millis;
use toml::Value;

use crate::import::{
    draft::{Entry, Origin, span},
    fields::{Field, Fields},
    note::NoteCode,
    policy::placed,
};

const ISTIO: &str = "Istio";

/// Keys of the breaker, each with Istio's default where the field is not there.
pub(super) fn entries(field: &Field<'_>) -> Option<Vec<Entry>> {
    const MOST: i64 = 1_000_000;
    let fields = field.map()?;
    let count = |field: &Field<'_>| field.integer(0..=MOST).map(Value::from);
    let percent = |field: &Field<'_>| field.integer(0..=100).map(Value::from);
    let time = |field: &Field<'_>| field.duration().map(span);
    let consecutive = placed(ISTIO, &fields, "consecutive5xxErrors", "consecutive_5xx", 5, count);
    let old = fields.has("consecutiveErrors") && !fields.has("consecutiveGatewayErrors");
    let name = if old { "consecutiveErrors" } else { "consecutiveGatewayErrors" };
    fields.ignore(&["consecutiveErrors"]);
    let gateway = placed(ISTIO, &fields, name, "consecutive_gateway_failure", 0, count);
    let split =
        placed(ISTIO, &fields, "splitExternalLocalOriginErrors", "split_l4_failures", false, |field| {
            field.boolean().map(Value::from)
        });
    let local = placed(ISTIO, &fields, "consecutiveLocalOriginFailures", "consecutive_l4_failure", 5, count);
    let interval = placed(ISTIO, &fields, "interval", "interval", span(Millis::secs(10)), time);
    let base = placed(ISTIO, &fields, "baseEjectionTime", "base_ejection_time", span(Millis::secs(30)), time);
    let ceiling = placed(ISTIO, &fields, "maxEjectionPercent", "max_ejection_percent", 10, percent);
    let panic = placed(ISTIO, &fields, "minHealthPercent", "panic_threshold", 0, percent);
    let errors = errors(&fields);
    let (consecutive, mut gateway) = (consecutive?, gateway?);
    let threshold = |entry: &Entry| entry.value.as_integer().unwrap_or_default();
    if threshold(&gateway) > 0 && (1..=threshold(&gateway)).contains(&threshold(&consecutive)) {
        gateway.differs = "consecutive_5xx is reached first, also in Istio, so this ejects nothing";
        let of = fields.get(name).unwrap_or_else(|| fields.of.clone());
        let message = "this threshold is never reached: a gateway error is a 5xx, too";
        of.note(NoteCode::Surprise, message, "write a lower number than consecutive5xxErrors");
    }
    let mut entries = vec![consecutive, gateway, split?, local?, errors?, interval?, base?, ceiling?];
    let panic = panic?;
    if panic.value != Value::from(0) {
        entries.push(panic);
    }
    Some(entries)
}

/// Every 5xx, and the codes that the rule adds.
fn errors(fields: &Fields<'_>) -> Option<Entry> {
    const FIELD: &str = "outlierDetectionHttpErrorCodes";
    let Some(field) = fields.get(FIELD) else {
        let origin = Origin::Default { of: ISTIO, field: FIELD };
        return Some(Entry::new("errors", vec!["500-599"], origin));
    };
    let mut codes = vec!["500-599".to_owned()];
    for code in field.list()? {
        let code = code.integer(100..=599)?;
        if code < 500 && !codes.contains(&code.to_string()) {
            codes.push(code.to_string());
        }
    }
    Some(Entry::new("errors", codes, &field))
}
