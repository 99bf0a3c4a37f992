//! The steps that must be seen, in order.

use std::time::Duration;

use anyhow::Result;
use lb_core::{
    event::{Event, EventKind},
    snapshot::{Effective, ProbeState},
};
use lb_lab::{Heard, clock};

use super::{
    load::{Outcome, Sample},
    moment::{STEPS, Step, backend_of, percent},
    scene::{APP, BAD, GOOD, INTERVAL, LONE, TRIALS},
    stage::{Stage, trials_of},
};

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Seen,
    Missed,
    /// A person had enough.
    Quit,
}

/// A handshake that was under way when the table was swapped is accepted within this time.
const HANDSHAKE: Duration = Duration::from_millis(50);
/// Between two clocks that are read one after the other.
const CLOCKS: Duration = Duration::from_millis(5);
const LONE_VISIT: Duration = Duration::from_secs(8);

/// The outcome of one step: it was seen, or it was not.
type Shown = std::result::Result<String, String>;

pub(super) fn play(stage: &mut Stage) -> Result<End> {
    let mut act = Act { stage, next: 0, ejected: None };
    for (number, step) in ACTS.iter().enumerate() {
        let shown = step(&mut act)?;
        if act.stage.has_quit() {
            return Ok(End::Quit);
        }
        match shown {
            Ok(what) => act.stage.record(number, Step::Seen(what)),
            Err(why) => {
                act.stage.record(number, Step::Missed(why));
                return Ok(End::Missed);
            }
        }
    }
    Ok(End::Seen)
}

/// After the story, until a person quits.
pub(super) fn linger(stage: &mut Stage) -> Result<()> {
    stage.visit(APP);
    stage.wait(Duration::MAX / 2, |_| Ok(None::<()>)).map(drop)
}

const ACTS: [fn(&mut Act<'_>) -> Result<Shown>; STEPS.len()] = [
    |act| act.both_serve(),
    |act| act.third_in_a_row(),
    |act| act.ejected_though_up(),
    |act| act.share_is_nothing(),
    |act| act.nothing_new_reaches_it(),
    |act| act.trials_are_bounded(),
    |act| act.heals(),
    |act| act.is_readmitted(),
    |act| act.floor_keeps_it(),
];

struct Act<'a> {
    stage: &'a mut Stage,
    /// Events before this place were seen.
    next: usize,
    ejected: Option<Ejected>,
}

struct Ejected {
    heard: Heard,
    trials_before: u64,
}

impl Act<'_> {
    fn both_serve(&mut self) -> Result<Shown> {
        let limit = Duration::from_secs(15);
        for name in [GOOD, BAD] {
            let up = self.stage.backend(limit, APP, name, |backend| {
                backend.effective == Effective::Serving
                    && backend.probe == ProbeState::Up
                    && backend.share > 0
            })?;
            if up.is_none() {
                return Ok(Err(format!("{name} was not up and serving within {limit:?}")));
            }
        }
        self.stage.visit(APP);
        let shares = [GOOD, BAD].map(|name| {
            let share = backend_of(self.stage.status(), APP, name).map_or(0, |backend| backend.share);
            format!("{name} {}", percent(share))
        });
        Ok(Ok(shares.join(", ")))
    }

    fn third_in_a_row(&mut self) -> Result<Shown> {
        let eject = |event: &Event| of(event, APP, EventKind::Eject);
        let Some((heard, next)) = self.stage.event(self.next, Duration::from_secs(20), eject)? else {
            return Ok(Err("no ejection within 20 s".to_owned()));
        };
        self.next = next;
        let evidence = &heard.event.evidence;
        let last: Vec<_> = evidence.last.iter().map(|seen| seen.status.to_string()).collect();
        let trials_before = trials_of(self.stage.status(), APP);
        let shown = match evidence.consecutive_5xx {
            Some(run)
                if run.count >= run.threshold
                    && last.ends_with(&["500", "500", "500"].map(str::to_owned)) =>
            {
                Ok(format!(
                    "{} of {} in a row; its last answers: {}",
                    run.count,
                    run.threshold,
                    last.join(" ")
                ))
            }
            run => Err(format!("ejected with other evidence: {run:?}, last answers {}", last.join(" "))),
        };
        self.ejected = Some(Ejected { heard, trials_before });
        Ok(shown)
    }

    fn ejected(&self) -> &Ejected {
        self.ejected.as_ref().expect("the step before this one found the ejection")
    }

    fn ejected_though_up(&mut self) -> Result<Shown> {
        let event = &self.ejected().heard.event;
        if !event.enforced || event.evidence.probe != Some(ProbeState::Up) {
            return Ok(Err(event.sentence()));
        }
        let out_of = event.evidence.backends;
        Ok(Ok(format!("ejection {}, 1 of {out_of} backends out, probe up at that moment", event.ejection)))
    }

    fn share_is_nothing(&mut self) -> Result<Shown> {
        let limit = Duration::from_secs(3);
        let out = self.stage.backend(limit, APP, BAD, |backend| {
            backend.effective == Effective::Ejected && backend.share == 0
        })?;
        Ok(match out {
            Some(backend) => Ok(backend.reason.unwrap_or_else(|| "status gives no reason".to_owned())),
            None => Err("status still shows a share".to_owned()),
        })
    }

    /// By the clients, whose connections begin at known times, and by the backend's own book.
    fn nothing_new_reaches_it(&mut self) -> Result<Shown> {
        let trial = |event: &Event| of(event, APP, EventKind::Trial);
        let Some((trial, next)) = self.stage.event(self.next, Duration::from_secs(15), trial)? else {
            return Ok(Err("it did not become half-open within 15 s".to_owned()));
        };
        self.next = next;
        let announced = self.ejected().heard.at;
        let until = self.stage.when(trial.event.t_ms).saturating_sub(CLOCKS);
        let samples = self.stage.samples();
        // Begun after the announcement was read here, and standing before the trial was decided.
        let within = |sample: &&Sample| sample.begun >= announced && sample.established < until;
        let begun: Vec<&Sample> = samples.iter().filter(within).collect();
        let strays: Vec<String> = begun
            .iter()
            .filter(|sample| sample.is_from(BAD))
            .map(|sample| format!("{} ms after the announcement", (sample.begun - announced).as_millis()))
            .collect();
        let book = self.stage.scene.bad.report(announced + HANDSHAKE)?;
        let accepted = book.clients().filter(|client| Duration::from_nanos(client.at_ns) < until).count();
        let (requests, seconds) = (begun.len(), (until.saturating_sub(announced)).as_secs_f64());
        Ok(if strays.is_empty() && accepted == 0 && requests > 0 {
            Ok(format!("0 of {requests} requests on new connections in {seconds:.1} s; its own book agrees"))
        } else {
            let strays = strays.join(", ");
            Err(format!(
                "of {requests} requests reached it: [{strays}]; its own book has {accepted} connections"
            ))
        })
    }

    fn trials_are_bounded(&mut self) -> Result<Shown> {
        let decided = |event: &Event| of(event, APP, EventKind::Eject) || of(event, APP, EventKind::Readmit);
        let Some((heard, next)) = self.stage.event(self.next, Duration::from_secs(10), decided)? else {
            return Ok(Err("the trial was not decided within 10 s".to_owned()));
        };
        self.next = next;
        let from = self.ejected().heard.at + HANDSHAKE;
        // After another ejection nothing new may come, so all there is counts; a readmission opens the door.
        let readmitted = heard.event.kind == EventKind::Readmit;
        let until = if readmitted {
            self.stage.when(heard.event.t_ms).saturating_sub(CLOCKS)
        } else {
            self.stage.wait(HANDSHAKE, |_| Ok(None::<()>))?;
            clock::now()
        };
        let book = self.stage.scene.bad.report(from)?;
        let accepted: Vec<_> =
            book.clients().filter(|client| Duration::from_nanos(client.at_ns) <= until).collect();
        // A budget is given at the beginning and renewed at a sweep that saw nothing decided.
        let first = accepted.first().map_or(until, |client| Duration::from_nanos(client.at_ns));
        let decided = self.stage.when(heard.event.t_ms);
        let sweeps = 1 + decided.saturating_sub(first).as_millis() / INTERVAL.as_millis();
        let budget = u128::from(TRIALS) * sweeps;
        let given = trials_of(&self.stage.scene.shunt.status()?, APP) - self.ejected().trials_before;
        let verdict = if readmitted {
            "by luck all were good: readmitted"
        } else {
            "one failed: ejected again, for longer"
        };
        if readmitted {
            // Half of its answers are still bad, so it does not last.
            let eject = |event: &Event| of(event, APP, EventKind::Eject);
            let Some((_, next)) = self.stage.event(self.next, Duration::from_secs(15), eject)? else {
                return Ok(Err("readmitted by luck, and not ejected again within 15 s".to_owned()));
            };
            self.next = next;
        }
        let count = accepted.len() as u128;
        Ok(if (1..=budget).contains(&count) {
            Ok(format!("{count} of at most {budget} connections ({given} by the kernel's count); {verdict}"))
        } else {
            Err(format!("{count} connections reached it, the budget is {budget}"))
        })
    }

    fn heals(&mut self) -> Result<Shown> {
        self.stage.scene.bad.heal()?;
        Ok(Ok("from now on it answers 200; Shunt is not informed".to_owned()))
    }

    fn is_readmitted(&mut self) -> Result<Shown> {
        // The second ejection lasts twice as long as the first, and ends at a sweep.
        let limit = Duration::from_secs(35);
        let readmit = |event: &Event| of(event, APP, EventKind::Readmit);
        let Some((heard, next)) = self.stage.event(self.next, limit, readmit)? else {
            return Ok(Err(format!("not readmitted within {limit:?}")));
        };
        self.next = next;
        let since = heard.at;
        let reached = self.stage.wait(Duration::from_secs(5), |stage| {
            let good = |sample: &Sample| sample.begun > since && sample.is_from(BAD) && sample.is_good();
            Ok(Some(stage.samples().iter().filter(|sample| good(sample)).count())
                .filter(|count| *count >= 10))
        })?;
        let share = self.stage.backend(Duration::from_secs(3), APP, BAD, |backend| {
            backend.effective == Effective::Serving && backend.share > 4000
        })?;
        Ok(match (reached, share) {
            (Some(_), Some(backend)) => {
                Ok(format!("{}; share {}", heard.event.sentence(), percent(backend.share)))
            }
            (None, _) => Err("readmitted, but no good answer of it was seen".to_owned()),
            (_, None) => Err("readmitted, but status shows no fair share".to_owned()),
        })
    }

    fn floor_keeps_it(&mut self) -> Result<Shown> {
        self.stage.say("now the clients visit the service that app-v5xx serves alone");
        self.stage.visit(LONE);
        let refused = |event: &Event| of(event, LONE, EventKind::Refused) && event.reason == "floor";
        let Some((heard, _)) = self.stage.event(0, Duration::from_secs(10), refused)? else {
            return Ok(Err("no ejection was refused within 10 s".to_owned()));
        };
        let kept = self.stage.backend(Duration::from_secs(3), LONE, BAD, |backend| {
            backend.effective == Effective::Serving
                && backend.reason.as_deref().is_some_and(|reason| reason.contains("floor"))
        })?;
        let Some(why) = kept.and_then(|backend| backend.reason) else {
            return Ok(Err("status does not say that the floor keeps it".to_owned()));
        };
        let end = heard.at + LONE_VISIT;
        self.stage.wait(LONE_VISIT, |_| Ok((clock::now() >= end).then_some(())))?;
        let samples = self.stage.samples();
        let answered =
            samples.iter().filter(|sample| matches!(sample.outcome, Outcome::Answer { .. })).count();
        let good = samples.iter().filter(|sample| sample.is_good()).count();
        let ejected =
            self.stage.scene.events.since(0).iter().any(|heard| of(&heard.event, LONE, EventKind::Eject));
        // Half of its answers are good; chance alone stays far above 40 % of some hundred.
        Ok(if !ejected && answered >= 100 && good * 100 >= samples.len() * 40 {
            Ok(format!("{good} of {} answers good; \"{why}\"", samples.len()))
        } else {
            Err(format!("ejected: {ejected}; {good} good of {} requests, {answered} answered", samples.len()))
        })
    }
}

fn of(event: &Event, service: &str, kind: EventKind) -> bool {
    event.service == service && event.backend.as_deref() == Some(BAD) && event.kind == kind
}
