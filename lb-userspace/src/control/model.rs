//! The JSON of `/v1`, as types. `shunt … -o json` prints exactly this.
//!
//! Every document begins with `schema`, see [`SCHEMA`]. Lines of events and of a replay do not: the response to
//! `GET /v1/events` says it in the header [`SCHEMA_HEADER`].

use lb_core::event::Event;
use serde::{Deserialize, Serialize};

mod change;
mod status;
mod traffic;
mod view;

pub use change::{Change, ChangeCode, Hazard, HazardCode, Order, Problem, ProblemKind, Reloaded};
pub use status::{
    Daemon, Discovery, Evidence, ExpiredFlows, Forwarding, Interface, LoopLag, Mode, Program, ProgramMap,
    Reactions, RemainingConnections, Status, Warning,
};
pub use traffic::{BackendTraffic, Counters, LimitUse, ResetCounts, ServiceDrops};
pub use view::{BackendView, By, Choice, Explanation, KnownConnection, Stage, TrialSlot, Way};

pub use crate::attach_mode::AttachMode;

/// Version of the names and meanings in every JSON document that Shunt prints or answers with. It moves when a field
/// is renamed, is removed or changes its meaning. A new field does not move it.
///
/// - 1: without the field `schema`.
/// - 2: the words of `docs/glossary.md`.
/// - 3: a code beside each text for people; `next` of a backend and `changes` of a reload are objects.
pub const SCHEMA: u32 = 3;

/// Carries [`SCHEMA`] in the response to `GET /v1/events`, whose lines are single events.
pub const SCHEMA_HEADER: &str = "shunt-schema";

/// A JSON document: [`SCHEMA`] first, then the fields of `body`.
#[derive(Clone, Debug, Serialize)]
pub struct Document<T> {
    schema: u32,
    #[serde(flatten)]
    body: T,
}

impl<T> Document<T> {
    pub fn new(body: T) -> Self {
        Self { schema: SCHEMA, body }
    }
}

/// The schema of a document whose other fields are not read. `None`: the document does not say it.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct DocumentSchema {
    pub schema: Option<u32>,
}

/// One line of `GET /v1/events`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum EventLine {
    Event(Box<Event>),
    Missed(Missed),
}

/// Stands where events are missing. It is the first line if the log no longer has the events that were asked for,
/// and the last line if the reader was too slow and the daemon ends the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missed {
    #[serde(rename = "type")]
    pub kind: MissedKind,
    /// How many events are missing, of all services.
    pub missed: u64,
    /// The last sequence number before the gap. A reader can ask for the events after it again.
    pub since: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MissedKind {
    Lagged,
}

/// `GET /v1/version`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    pub version: String,
    pub abi: u32,
    pub pid: u32,
}

impl Version {
    /// The version of this process.
    pub fn own() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            abi: lb_common::ABI_VERSION,
            pid: std::process::id(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use lb_common::{abi::BackendCounters, reason::Reason};

    use super::*;
    use crate::control::fixture;

    #[test]
    fn status_survives_json() {
        let status = fixture::status();
        let json = serde_json::to_string(&Document::new(&status)).expect("status is plain data");
        assert_eq!(serde_json::from_str::<Status>(&json).expect("own JSON"), status);
    }

    #[test]
    fn a_document_begins_with_its_schema() {
        let json = serde_json::to_string(&Document::new(Version::own())).expect("plain data");
        assert!(json.starts_with(r#"{"schema":3,"version":"#), "{json}");
        assert_eq!(serde_json::from_str::<DocumentSchema>(&json).expect("own JSON").schema, Some(SCHEMA));
        assert_eq!(serde_json::from_str::<DocumentSchema>("{}").expect("an object").schema, None);
    }

    #[test]
    fn counters_stand_beside_the_names() {
        let traffic = BackendTraffic {
            service: "web".to_owned(),
            backend: "web-1".to_owned(),
            reachable: true,
            path_warning: None,
            path_warning_code: None,
            counters: BackendCounters { connections: 7, ..BackendCounters::default() }.into(),
            resets: ResetCounts { drain: 2, ..ResetCounts::default() },
            limit: None,
        };
        let json = serde_json::to_value(&traffic).expect("plain data");
        assert_eq!(json["backend"], "web-1");
        assert_eq!(json["connections"], 7);
        assert_eq!(json["resets"]["drain"], 2);
    }

    #[test]
    fn drops_leave_out_reasons_that_never_occurred() {
        let mut counts = [0; Reason::COUNT];
        counts[Reason::NoBackend as usize] = 3;
        let drops = ServiceDrops::new("web", &counts);
        assert_eq!(drops.reasons, BTreeMap::from([("no_backend".to_owned(), 3)]));
    }

    #[test]
    fn event_lines_are_distinguished() {
        let event = fixture::event(4, "web");
        let line = serde_json::to_string(&event).expect("plain data");
        assert_eq!(
            serde_json::from_str::<EventLine>(&line).expect("event"),
            EventLine::Event(Box::new(event))
        );
        let line = r#"{"type":"lagged","missed":3,"since":9}"#;
        let missed = Missed { kind: MissedKind::Lagged, missed: 3, since: 9 };
        assert_eq!(serde_json::from_str::<EventLine>(line).expect("gap"), EventLine::Missed(missed));
        assert_eq!(serde_json::to_string(&missed).expect("plain data"), line);
    }

    #[test]
    fn only_keeps_one_service() {
        let mut status = fixture::status();
        assert!(status.knows("api") && status.knows("web"));
        status.only("api");
        assert!(status.knows("api") && !status.knows("web"));
        assert!(status.traffic.iter().all(|traffic| traffic.service == "api"));
        assert_eq!(status.forwarding.len(), 1);
        assert!(status.drops.iter().all(|drops| drops.service == "api"));
    }
}
