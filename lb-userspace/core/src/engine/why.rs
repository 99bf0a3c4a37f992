//! One backend in depth, for `shunt why`: the counts of each detector, and the next changes.

use super::{Engine, backend::Backend, service::Service};
use crate::{
    breaker::{Window, detector, ring::Ring, sweep},
    codes::{DetectorNext, NextCode},
    config::Detector,
    io::{FlowReset, Member},
    snapshot::{DetectorSnapshot, Next, Why},
    states::{BreakerState, OperatorState, PathState, ProbeState},
    time::{Instant, Millis, span},
};

impl Engine {
    /// `None`: there is no such backend.
    pub fn why(&self, service: &str, backend: &str, now: Instant) -> Option<Why> {
        let service = self.active().find(|known| known.config.name == service)?;
        let index = service.backends.iter().position(|known| known.config.name == backend)?;
        let of = &service.backends[index];
        Some(Why {
            service: service.config.name.clone(),
            backend: service.backend_snapshot(index, &service.view(), now),
            operator_since_ms: of.operator_since,
            probe_since_ms: of.health_since,
            in_maps: service.writer.agrees_on(of.id),
            pending: service.writer.failing.clone(),
            last_outcomes: of.last.iter().copied().collect(),
            last_decision: of.decision.as_deref().cloned(),
            detectors: service.detectors(of, now),
            next: service.outlook(of, now),
            next_sweep_ms: service.next_sweep,
        })
    }

    /// The members of a service's table as the maps hold it. `None`: there is no such service.
    pub fn members(&self, service: &str) -> Option<&[Member]> {
        let service = self.active().find(|known| known.config.name == service)?;
        Some(service.writer.applied.table.as_deref().unwrap_or_default())
    }
}

/// The present value of a rate.
struct Standing {
    detector: Detector,
    bad: u64,
    total: u64,
    least: u32,
    percent: u8,
}

impl Service {
    fn detectors(&self, backend: &Backend, now: Instant) -> Vec<DetectorSnapshot> {
        let policy = &self.config.breaker;
        let tally = &backend.tally;
        let l4 = if policy.split_l4_failures { policy.consecutive_l4_failure } else { 0 };
        let runs = [
            (Detector::ConsecutiveGatewayFailure, tally.run_gateway, policy.consecutive_gateway_failure),
            (Detector::Consecutive5xx, tally.run_5xx, policy.consecutive_5xx),
            (Detector::ConsecutiveL4Failure, tally.run_l4, l4),
        ];
        let runs = runs.into_iter().filter(|(_, _, threshold)| *threshold > 0);
        let mut all: Vec<_> =
            runs.map(|(detector, run, threshold)| self.run(detector, run, threshold)).collect();

        let ring = |ring: &Ring, limit: detector::Window| {
            let (total, bad) = ring.count(limit.window, now);
            let detector::Window { detector, window: _, least, percent } = limit;
            Standing { detector, bad, total, least, percent }
        };
        let at_once = [
            ring(&tally.errors, detector::error_rate(policy)),
            ring(&tally.slow, detector::slow_rate(policy)),
        ];
        all.extend(at_once.iter().filter(|of| of.percent > 0).map(|of| self.rate(of, "")));

        let at_sweep = format!(" when the interval ends in {}", span(self.next_sweep - now));
        let (http, l4) = self.lines(backend.fallback);
        let Window { responses, answers, failures, l4_failures, .. } = backend.breaker.window;
        let mut windows =
            vec![(Detector::SuccessRate, Detector::FailurePercentage, failures, responses, http)];
        if policy.split_l4_failures {
            let total = responses + answers + l4_failures;
            windows.push((Detector::SuccessRateL4, Detector::FailurePercentageL4, l4_failures, total, l4));
        }
        for (success_rate, failure_percentage, bad, total, line) in windows {
            if policy.success_rate_stdev_factor > 0 {
                all.push(self.success_rate(success_rate, total - bad, total, line, &at_sweep));
            }
            let (least, percent) =
                (policy.failure_percentage_min_responses, policy.failure_percentage_threshold);
            if percent > 0 {
                let of = Standing { detector: failure_percentage, bad, total, least, percent };
                all.push(self.rate(&of, &at_sweep));
            }
        }
        all
    }

    fn run(&self, detector: Detector, run: u32, threshold: u32) -> DetectorSnapshot {
        let more = threshold.saturating_sub(run).max(1);
        DetectorSnapshot {
            name: detector.to_string(),
            enforced: self.config.breaker.enforces(detector),
            count: u64::from(run),
            total: None,
            least: None,
            threshold: Some(threshold),
            next: format!("{more} more in a row"),
            next_code: DetectorNext::MoreFailures,
        }
    }

    fn rate(&self, of: &Standing, when: &str) -> DetectorSnapshot {
        let (next_code, next) = match more_failures(of) {
            Some(more) if when.is_empty() => (DetectorNext::MoreFailures, format!("{more} more in a row")),
            Some(more) => (DetectorNext::MoreFailuresAtSweep, format!("{more} more in a row{when}")),
            None => (
                DetectorNext::NotWithThisWindow,
                "nothing while one good response is in the window".to_owned(),
            ),
        };
        DetectorSnapshot {
            name: of.detector.to_string(),
            enforced: self.config.breaker.enforces(of.detector),
            count: of.bad,
            total: Some(of.total),
            least: Some(of.least),
            threshold: Some(u32::from(of.percent) * 100),
            next,
            next_code,
        }
    }

    fn success_rate(
        &self,
        detector: Detector,
        good: u64,
        total: u64,
        line: Option<u32>,
        when: &str,
    ) -> DetectorSnapshot {
        let (next_code, next) = match line {
            Some(line) => (
                DetectorNext::RateBelow,
                format!("a rate below {}.{:02} %, as it is now,{when}", line / 100, line % 100),
            ),
            None => (
                DetectorNext::TooFewBackends,
                format!("nothing unless enough backends can be compared{when}"),
            ),
        };
        DetectorSnapshot {
            name: detector.to_string(),
            enforced: self.config.breaker.enforces(detector),
            count: good,
            total: Some(total),
            least: Some(self.config.breaker.success_rate_min_responses),
            threshold: line,
            next,
            next_code,
        }
    }

    /// The threshold of `success_rate` among the backends of the fallback, or among the others.
    fn lines(&self, fallback: bool) -> (Option<u32>, Option<u32>) {
        let like = |backend: &Backend| backend.fallback == fallback && !backend.out();
        let inside = self.backends.iter().enumerate().filter(|(_, backend)| like(backend));
        let windows: Vec<_> = inside.map(|(index, backend)| (index, backend.breaker.window)).collect();
        sweep::lines(&self.config.breaker, &windows)
    }

    /// The next changes, the nearest first.
    fn outlook(&self, backend: &Backend, now: Instant) -> Vec<Next> {
        let policy = &self.config.breaker;
        let mut next = Vec::new();
        if backend.operator != OperatorState::Enabled {
            let end = backend.operator_override.as_ref().and_then(|order| order.until);
            let end = end.map(|end| format!(", or by itself in {}", span(end - now))).unwrap_or_default();
            let says = format!("it is {} until an operator enables it{end}", backend.operator);
            next.push(change(NextCode::Enable, says));
        } else if backend.order() != OperatorState::Enabled {
            let says = format!("it is {} until discovery calls it ready", backend.order());
            next.push(change(NextCode::DiscoveryReady, says));
        }
        if backend.path != PathState::Ok {
            let says = format!("it serves again once frames reach it: {}", backend.path.message());
            next.push(change(NextCode::Reachable, says));
        }
        if backend.health.state() == ProbeState::Down {
            let rise = self.config.probe.as_ref().map_or(1, |probe| probe.rise);
            let more = rise.saturating_sub(backend.health.against()).max(1);
            let says = format!("{more} more passing probes in a row bring it up");
            next.push(change(NextCode::ProbesPass, says));
        }
        match backend.breaker.state() {
            BreakerState::Closed => next.extend(self.outlook_of_suspicion(backend)),
            BreakerState::Open => next.push(self.outlook_of_ejection(backend, now)),
            BreakerState::HalfOpen => {
                let good = backend.breaker.trial().map_or(0, |trial| trial.good);
                let more = policy.half_open_successes.saturating_sub(good).max(1);
                let says = format!("{more} more good outcomes in a row readmit it");
                next.push(change(NextCode::GoodOutcomes, says));
                let says = "one failure ejects it again, with the next number";
                next.push(change(NextCode::OneFailure, says));
                next.extend(self.outlook_of_suspicion(backend));
                if let Some(sweeps) = backend.breaker.patience(policy) {
                    let says = format!("{sweeps} more sweeps without an outcome close it");
                    next.push(change(NextCode::NoOutcomes, says));
                }
            }
        }
        next.extend(self.outlook_of_order(backend));
        if !backend.readmits(policy) && backend.out() {
            next.push(change(NextCode::NeedsProbe, "it returns only with its probe up"));
        }
        next.extend(self.outlook_of_connections(backend, now));
        next
    }

    /// The order that readmits it. If its detector is off, another one that could have ejected it keeps it out.
    fn outlook_of_order(&self, backend: &Backend) -> Option<Next> {
        let policy = &self.config.breaker;
        let is_off = |detector: &Detector| !policy.is_on(*detector) || !policy.enforces(*detector);
        let order = format!("`shunt backend admit {}/{}`", self.config.name, backend.config.name);
        match backend.ejected_by.filter(is_off) {
            Some(detector) => {
                let says = format!("{detector}, which ejected it, is off; {order} readmits it at once");
                Some(change(NextCode::DetectorOff, says))
            }
            None if backend.breaker.state() == BreakerState::Open => {
                Some(change(NextCode::Admit, format!("{order} readmits it at once")))
            }
            None => None,
        }
    }

    fn outlook_of_ejection(&self, backend: &Backend, now: Instant) -> Next {
        let policy = &self.config.breaker;
        let until = backend.breaker.until().unwrap_or(now);
        let (code, how) = if policy.half_open_trials > 0 && policy.enforce {
            let how = format!("half-open with {} new connections a sweep", policy.half_open_trials);
            (NextCode::HalfOpen, how)
        } else {
            (NextCode::Serving, "serving".to_owned())
        };
        let probe = if backend.readmits(policy) { "" } else { ", if its probe is up by then" };
        change(code, format!("{how} in {}{probe}", span(self.first_sweep(until) - now)))
    }

    /// The conditions under which its failures count.
    fn outlook_of_suspicion(&self, backend: &Backend) -> Vec<Next> {
        let mut next = Vec::new();
        let waiting = backend.suspicion.waiting();
        if waiting > 0 {
            let s = if waiting == 1 { " counts" } else { "s count" };
            let says = format!("{waiting} L4 failure{s} once confirmed");
            next.push(change(NextCode::Confirmed, says));
        }
        let least = self.config.breaker.min_clients;
        if let Some(client_counts) =
            self.client_counts.filter(|client_counts| least > 1 && !client_counts.is_lone())
        {
            let (all, what) = match client_counts.prefixes {
                0 | 1 => (client_counts.addresses, "addresses"),
                prefixes => (prefixes, "prefixes"),
            };
            let says = format!("failures count once clients of {} {what} see them", least.min(all));
            next.push(change(NextCode::MoreClients, says));
        }
        next
    }

    fn outlook_of_connections(&self, backend: &Backend, now: Instant) -> Option<Next> {
        let drain = backend.drain?;
        let left = span(drain.until - now);
        Some(match drain.flow_reset(backend.on_out(&self.config.connections)) {
            FlowReset::Never => {
                let says = format!("its connections continue, and those that are left in {left} are reset");
                change(NextCode::ConnectionsDrain, says)
            }
            FlowReset::AtRequest => {
                let says = format!(
                    "its connections end at their next request or when idle, in {left} at the latest"
                );
                change(NextCode::ConnectionsAtRequest, says)
            }
            FlowReset::Now => change(NextCode::ConnectionsReset, "the connections that were left are reset"),
        })
    }

    /// The first sweep that is not before `at`.
    pub(super) fn first_sweep(&self, at: Instant) -> Instant {
        let interval = self.config.breaker.interval.0.max(1);
        let after = (at - self.next_sweep).0.div_ceil(interval);
        self.next_sweep + Millis(after.saturating_mul(interval))
    }
}

fn change(code: NextCode, says: impl Into<String>) -> Next {
    Next { code, says: says.into() }
}

/// How many more failures in a row would make it detect. `None`: no number of failures would.
fn more_failures(of: &Standing) -> Option<u64> {
    let percent = u64::from(of.percent);
    let missing = u64::from(of.least).saturating_sub(of.total);
    let short = (percent * of.total).saturating_sub(100 * of.bad);
    let by_share = match 100 - percent {
        0 if short > 0 => return None,
        0 => 0,
        good => short.div_ceil(good),
    };
    Some(missing.max(by_share).max(1))
}
