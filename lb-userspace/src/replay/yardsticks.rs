//! Yardsticks: they say which outcome is an error, and which readmission was false.

use std::{collections::BTreeMap, ops::RangeInclusive};

use lb_core::{config::Config, time::Millis};

/// The yardstick of each service. Two configurations are compared by the same ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Yardsticks(BTreeMap<String, Yardstick>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Yardstick {
    pub(super) errors: Vec<RangeInclusive<u16>>,
    /// A readmission is false when another ejection follows it within this time.
    pub(super) relapse: Millis,
}

impl Yardsticks {
    /// A status is an error if any of the configurations says so. The longest `base_ejection_time` of them
    /// decides what a relapse is.
    pub fn of<'a>(configs: impl IntoIterator<Item = &'a Config>) -> Self {
        let mut all: BTreeMap<String, Yardstick> = BTreeMap::new();
        for service in configs.into_iter().flat_map(|config| &config.services) {
            let yardstick = all.entry(service.name.clone()).or_default();
            yardstick.errors.extend(service.breaker.errors.iter().cloned());
            yardstick.relapse = yardstick.relapse.max(service.breaker.base_ejection_time);
        }
        Self(all)
    }

    pub(super) fn of_service(&self, name: &str) -> Option<&Yardstick> {
        self.0.get(name)
    }
}
