//! `outlier_detection` of a cluster.

use lb_core::time::Millis;
use toml::Value;

use crate::import::{
    draft::{Entry, Origin, span},
    fields::{Field, Fields},
    note::NoteCode,
    policy::placed,
};

const ENVOY: &str = "Envoy";

/// A detector: the field of how much of it is enforced, Envoy's default, the key that switches it, its name in
/// `shadow`.
struct Detector {
    enforcing: &'static str,
    default: i64,
    key: &'static str,
    name: &'static str,
}

const DETECTORS: &[Detector] = &[
    Detector {
        enforcing: "enforcing_consecutive_5xx",
        default: 100,
        key: "consecutive_5xx",
        name: "consecutive_5xx",
    },
    Detector {
        enforcing: "enforcing_consecutive_gateway_failure",
        default: 0,
        key: "consecutive_gateway_failure",
        name: "consecutive_gateway_failure",
    },
    Detector {
        enforcing: "enforcing_consecutive_local_origin_failure",
        default: 100,
        key: "consecutive_l4_failure",
        name: "consecutive_l4_failure",
    },
    Detector {
        enforcing: "enforcing_success_rate",
        default: 100,
        key: "success_rate_stdev_factor",
        name: "success_rate",
    },
    Detector {
        enforcing: "enforcing_failure_percentage",
        default: 0,
        key: "failure_percentage_threshold",
        name: "failure_percentage",
    },
];

/// Keys of the breaker, each with Envoy's default where the field is not there.
pub(super) fn entries(field: &Field<'_>) -> Option<Vec<Entry>> {
    let fields = field.map()?;
    let count = |field, key, default: i64| {
        placed(ENVOY, &fields, field, key, default, |field| field.integer(0..=1_000_000).map(Value::from))
    };
    let time = |field, key, seconds| {
        placed(ENVOY, &fields, field, key, span(Millis::secs(seconds)), |field| field.duration().map(span))
    };
    let flag = |field, key, default: bool| {
        placed(ENVOY, &fields, field, key, default, |field| field.boolean().map(Value::from))
    };
    let five = count("consecutive_5xx", "consecutive_5xx", 5);
    let gateway = count("consecutive_gateway_failure", "consecutive_gateway_failure", 5);
    let split = flag("split_external_local_origin_errors", "split_l4_failures", false);
    let local = count("consecutive_local_origin_failure", "consecutive_l4_failure", 5);
    let factor =
        placed(ENVOY, &fields, "success_rate_stdev_factor", "success_rate_stdev_factor", 1900, |field| {
            field.integer(0..=10_000).map(Value::from)
        });
    let volume = count("success_rate_request_volume", "success_rate_min_responses", 100);
    let hosts = count("success_rate_minimum_hosts", "success_rate_min_backends", 5);
    let percent =
        placed(ENVOY, &fields, "failure_percentage_threshold", "failure_percentage_threshold", 85, |field| {
            field.integer(0..=100).map(Value::from)
        });
    let percent_volume = count("failure_percentage_request_volume", "failure_percentage_min_responses", 50);
    let percent_hosts = count("failure_percentage_minimum_hosts", "failure_percentage_min_backends", 5);
    let interval = time("interval", "interval", 10);
    let base = time("base_ejection_time", "base_ejection_time", 30);
    let longest = time("max_ejection_time", "max_ejection_time", 300);
    let jitter = time("max_ejection_time_jitter", "max_ejection_time_jitter", 0);
    let ceiling = placed(ENVOY, &fields, "max_ejection_percent", "max_ejection_percent", 10, |field| {
        field.integer(0..=100).map(Value::from)
    });
    let one = flag("always_eject_one_host", "always_eject_one", false);
    let uneject = flag("successful_active_health_check_uneject_host", "probe_uneject", true);
    // Shunt's detectors of L4 failures follow those of all failures.
    fields.ignore(&["enforcing_failure_percentage_local_origin", "enforcing_local_origin_success_rate"]);
    let message = "Shunt has no detector like it";
    fields.refuse(&["monitors"], NoteCode::NotCarried, message, "");
    let mut entries = vec![
        five?,
        gateway?,
        split?,
        local?,
        factor?,
        volume?,
        hosts?,
        percent?,
        percent_volume?,
        percent_hosts?,
        interval?,
        base?,
        longest?,
        jitter?,
        ceiling?,
        one?,
        uneject?,
    ];
    let origin = Origin::Default { of: ENVOY, field: "consecutive_5xx" };
    entries.push(Entry::new("errors", vec!["500-599"], origin));
    enforce(&fields, &mut entries);
    at_least_base(&mut entries);
    Some(entries)
}

/// How much of a detector is enforced: nothing means that it only reports.
fn enforce(fields: &Fields<'_>, entries: &mut Vec<Entry>) {
    let mut shadow = Vec::new();
    for detector in DETECTORS {
        let Some(field) = fields.get(detector.enforcing) else {
            if detector.default == 0 {
                switch_off(detector, entries);
            }
            continue;
        };
        match field.integer(0..=100) {
            Some(0) => shadow.push((detector.name, field)),
            Some(100) | None => {}
            Some(part) => {
                let message =
                    format!("Shunt ejects whenever a detector says so, not in {part} % of all cases");
                field.note(NoteCode::NotCarried, message, "write 0 or 100");
            }
        }
    }
    if let Some((_, first)) = shadow.first() {
        let names: Vec<_> = shadow.iter().map(|(name, _)| *name).collect();
        entries.push(Entry::new("shadow", names, first));
    }
}

/// Envoy only counts what such a detector finds.
fn switch_off(detector: &Detector, entries: &mut [Entry]) {
    for entry in entries.iter_mut().filter(|entry| entry.key == detector.key) {
        entry.value = 0.into();
        entry.origin = Origin::Default { of: ENVOY, field: detector.enforcing };
    }
}

/// Envoy takes the larger of the two.
fn at_least_base(entries: &mut [Entry]) {
    let of = |key: &str| {
        let entry = entries.iter().find(|entry| entry.key == key)?;
        Some((crate::config::parse_duration(entry.value.as_str()?)?, entry.value.clone()))
    };
    let (Some((base, text)), Some((longest, _))) = (of("base_ejection_time"), of("max_ejection_time")) else {
        return;
    };
    if longest < base {
        for entry in entries.iter_mut().filter(|entry| entry.key == "max_ejection_time") {
            entry.value = text.clone();
            entry.differs = "Envoy, too, takes the base where it is larger";
        }
    }
}
