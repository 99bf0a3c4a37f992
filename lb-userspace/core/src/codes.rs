//! Codes for programs. In every JSON document a code stands beside each text for people.
//!
//! The texts may change with any version. A code keeps its meaning; a new one may appear. `docs/codes.md` lists all of
//! them, and a test compares that page with the enums.

mod discovery_code;
mod event_reason;
mod probe_code;

pub use discovery_code::DiscoveryCode;
pub use event_reason::EventReason;
pub use probe_code::ProbeCode;

/// An enum whose variants are codes. The document of a variant is its meaning in `docs/codes.md`.
#[macro_export]
macro_rules! codes {
    ($(#[$meta:meta])* $name:ident { $(#[doc = $meaning:literal] $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
        )]
        pub enum $name { $(#[doc = $meaning] #[serde(rename = $text)] $variant),+ }

        impl $name {
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// One line for the documents.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, name: &str) -> bool {
                self.as_str() == name
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, name: &&str) -> bool {
                self.as_str() == *name
            }
        }
    };
}

codes! {
    /// Why a backend is in its effective state. Beside the sentence in `reason`.
    BackendReason {
        /// The operator drains it.
        Draining = "draining",
        /// The operator has disabled it.
        Disabled = "disabled",
        /// Discovery drains it.
        DiscoveryDrains = "discovery_drains",
        /// Discovery calls it out.
        DiscoveryOut = "discovery_out",
        /// The packet path cannot reach it; `path` has the cause.
        Unreachable = "unreachable",
        /// The last probe failed; `last_probe_code` has the cause.
        ProbeFails = "probe_fails",
        /// Its last probe passed, but not yet `rise` in a row.
        ProbeBelowRise = "probe_below_rise",
        /// Its first probe has no result yet, and others are known to be up.
        NotProbedUnused = "not_probed_unused",
        /// Its first probe has no result yet, and nobody is known to be up.
        NotProbedUsed = "not_probed_used",
        /// Its breaker is open and the time is not over.
        Ejected = "ejected",
        /// The time of its ejection is over, but its probe is not up.
        EjectedProbeNotUp = "ejected_probe_not_up",
        /// The time of its ejection is over; it returns at the next sweep.
        EjectedTimeOver = "ejected_time_over",
        /// It is half-open and in a trial slot.
        HalfOpen = "half_open",
        /// It is half-open and waits for a trial slot.
        HalfOpenWaits = "half_open_waits",
        /// A detection was refused because too many response heads were lost.
        EvidenceLost = "evidence_lost",
        /// The ceiling refused a detection.
        Ceiling = "ceiling",
        /// The floor refused a detection.
        Floor = "floor",
        /// Its failures were not confirmed, or too few clients saw them.
        Suspected = "suspected",
        /// A detection did nothing, because `enforce` is false.
        NotEnforced = "not_enforced",
        /// A detection did nothing, because its detector is in `shadow`.
        Shadow = "shadow",
        /// It is a fallback, used because none of the others serves.
        FallbackUsed = "fallback_used",
        /// It is a fallback, and one of the others serves.
        FallbackUnused = "fallback_unused",
        /// It serves, but the maps lack what was decided; `pending` has the cause.
        MapsBehind = "maps_behind",
    }
}

codes! {
    /// A change that would eject a backend or readmit it. In `next` of a backend.
    NextCode {
        /// The operator enables it, or the order ends.
        Enable = "enable",
        /// Discovery calls it ready again.
        DiscoveryReady = "discovery_ready",
        /// Frames reach it again.
        Reachable = "reachable",
        /// Enough probes pass in a row.
        ProbesPass = "probes_pass",
        /// Its L4 failures are confirmed.
        Confirmed = "confirmed",
        /// Enough different clients see its failures.
        MoreClients = "more_clients",
        /// The ejection ends with trials.
        HalfOpen = "half_open",
        /// The ejection ends with its full share.
        Serving = "serving",
        /// Enough good outcomes in a row readmit it.
        GoodOutcomes = "good_outcomes",
        /// One failure ejects it again.
        OneFailure = "one_failure",
        /// Enough sweeps without an outcome readmit it.
        NoOutcomes = "no_outcomes",
        /// An order readmits it at once.
        Admit = "admit",
        /// The detector that ejected it is off; an order readmits it at once.
        DetectorOff = "detector_off",
        /// It returns only with its probe up.
        NeedsProbe = "needs_probe",
        /// Its connections continue until `drain_timeout` is over.
        ConnectionsDrain = "connections_drain",
        /// Its connections end at their next request.
        ConnectionsAtRequest = "connections_at_request",
        /// The rest of its connections is reset.
        ConnectionsReset = "connections_reset",
    }
}

codes! {
    /// When a detector would detect. Beside the words in `next` of a detector.
    DetectorNext {
        /// With so many more failures in a row, at once.
        MoreFailures = "more_failures",
        /// With so many more failures in a row, when the interval ends.
        MoreFailuresAtSweep = "more_failures_at_sweep",
        /// With no number of failures while one good response is in the window.
        NotWithThisWindow = "not_with_this_window",
        /// With a rate below the threshold, when the interval ends.
        RateBelow = "rate_below",
        /// Not while too few backends can be compared.
        TooFewBackends = "too_few_backends",
    }
}

codes! {
    /// The kind of an operator's order. Beside `what` in `overrides`.
    OverrideCode {
        /// The operator drains it.
        Draining = "draining",
        /// The operator has disabled it.
        Disabled = "disabled",
        /// It has another weight than in the file.
        Weight = "weight",
    }
}

codes! {
    /// Why the maps lack what was decided. In `pending`.
    PendingCode {
        /// A map write failed; the engine tries it again.
        WriteFailed = "write_failed",
    }
}

codes! {
    /// Why something of the daemon itself does not work. Beside each `…_error` of `daemon`.
    DaemonCode {
        /// The state file cannot be written.
        StateNotWritten = "state_not_written",
        /// The counters in the maps cannot be read.
        CountersNotRead = "counters_not_read",
        /// Probes wait for file descriptors.
        LacksDescriptors = "lacks_descriptors",
        /// Probes wait for memory or buffers.
        LacksMemory = "lacks_memory",
        /// Probes wait for local ports.
        LacksPorts = "lacks_ports",
    }
}
