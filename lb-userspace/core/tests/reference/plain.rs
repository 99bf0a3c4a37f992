//! The rules, as plainly as possible. This engine keeps every outcome and counts them all again for each
//! decision.
//!
//! One file because a reader compares it with the rules from top to bottom.

use std::collections::{BTreeMap, BTreeSet};

use lb_core::{
    config::{BackoffDecay, Breaker, HalfOpenExit},
    event::EventKind,
    io::{ClientCounts, L4Failure},
};

use crate::suspects::{Suspects, suffice};

/// Type, backend, reason and whether it was enforced.
pub(crate) type Said = (EventKind, String, String, bool);

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum At {
    In,
    Out { until: u64 },
    Half { good: u32, empty: u32 },
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Order {
    Enabled,
    Draining,
    Disabled,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Probe {
    Absent,
    Unknown,
    Up { failed: u32 },
    Down { passed: u32 },
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) status: u16,
    pub(crate) l4: Option<L4Failure>,
    /// Later than `slow_threshold`.
    pub(crate) slow: bool,
    pub(crate) by: By,
}

/// The client that saw an outcome.
#[derive(Clone, Copy, Debug)]
pub(crate) struct By {
    /// The number of a client. The first two are of one prefix.
    pub(crate) client: Option<u8>,
    pub(crate) client_counts: Option<ClientCounts>,
    pub(crate) late: bool,
}

impl By {
    const NOBODY: Self = Self { client: None, client_counts: None, late: false };
}

#[derive(Clone)]
pub(crate) struct Peer {
    pub(crate) at: At,
    pub(crate) order: Order,
    pub(crate) probe: Probe,
    /// Frames reach it.
    pub(crate) reached: bool,
    pub(crate) since: u64,
    pub(crate) number: u64,
    /// The detector that ejected it.
    cause: Option<String>,
    pub(crate) run: u32,
    /// When it became `In` again, and the fifths of its share.
    pub(crate) warm: Option<(u64, u64)>,
    in_trial_slot: bool,
    gateway: u32,
    l4: u32,
    /// The clients that saw the failures of the runs, and those of a half-open backend.
    run_by: Vec<Option<u8>>,
    gateway_by: Vec<Option<u8>>,
    trial_by: Vec<Option<u8>>,
    pub(crate) suspects: Suspects,
    /// Since the sweep or the last change: (is L4 and split, is a failure, who saw it).
    interval: Vec<(bool, bool, Option<u8>)>,
    detections: u32,
    /// Since the sweep: heads that came and heads that were lost.
    heads: u64,
    lost: u64,
    /// Time, whether it is bad, and who saw it, for the two windows.
    errors: Vec<(u64, bool, Option<u8>)>,
    slow: Vec<(u64, bool, Option<u8>)>,
}

pub(crate) struct Reference {
    pub(crate) policy: Breaker,
    pub(crate) probed: bool,
    pub(crate) rise: u32,
    pub(crate) fall: u32,
    pub(crate) now: u64,
    sweep: u64,
    pub(crate) peers: BTreeMap<&'static str, Peer>,
    pub(crate) said: Vec<Said>,
    /// The clients of the service, as last heard.
    pub(crate) client_counts: Option<ClientCounts>,
    /// A success rate was so near its threshold that floating point may not say.
    pub(crate) close_call: bool,
}

impl Reference {
    pub(crate) fn new(policy: Breaker, probed: bool, (rise, fall): (u32, u32)) -> Self {
        let (sweep, peers, said) = (policy.interval.0, BTreeMap::new(), Vec::new());
        Self {
            policy,
            probed,
            rise,
            fall,
            now: 0,
            sweep,
            peers,
            said,
            client_counts: None,
            close_call: false,
        }
    }

    pub(crate) fn add(&mut self, name: &'static str) {
        let peer = Peer {
            at: At::In,
            order: Order::Enabled,
            probe: if self.probed { Probe::Unknown } else { Probe::Absent },
            reached: true,
            since: self.now,
            number: 0,
            cause: None,
            run: 0,
            warm: None,
            in_trial_slot: false,
            gateway: 0,
            l4: 0,
            run_by: Vec::new(),
            gateway_by: Vec::new(),
            trial_by: Vec::new(),
            suspects: Suspects::default(),
            interval: Vec::new(),
            detections: 0,
            heads: 0,
            lost: 0,
            errors: Vec::new(),
            slow: Vec::new(),
        };
        self.peers.insert(name, peer);
    }

    /// A restart keeps ejections, ejection numbers and orders, nothing else.
    pub(crate) fn restart(&mut self) {
        for (name, before) in std::mem::take(&mut self.peers) {
            self.add(name);
            let at = match before.at {
                At::In => At::In,
                At::Out { until } => At::Out { until: until.max(self.now) },
                At::Half { .. } => At::Out { until: self.now },
            };
            if at != At::In {
                self.say(EventKind::Eject, name, "restored", true);
            }
            let peer = self.peers.get_mut(name).expect("just added");
            (peer.at, peer.number, peer.order) = (at, before.number, before.order);
            peer.cause = before.cause;
        }
        self.sweep = self.now + self.policy.interval.0;
        self.client_counts = None;
    }

    pub(crate) fn peer(&mut self, name: &str) -> &mut Peer {
        self.peers.get_mut(name).expect("known")
    }

    pub(crate) fn say(&mut self, kind: EventKind, name: &str, reason: &str, enforced: bool) {
        self.said.push((kind, name.to_owned(), reason.to_owned(), enforced));
    }

    fn turn(&mut self, name: &str, kind: EventKind, at: At, reason: &str) {
        let (now, slow_start) = (self.now, self.policy.slow_start.0);
        let peer = self.peer(name);
        (peer.at, peer.since, peer.detections) = (at, now, 0);
        peer.interval.clear();
        peer.trial_by.clear();
        peer.suspects.turn();
        match at {
            At::In => {
                peer.cause = None;
                (peer.gateway, peer.run, peer.l4) = (0, 0, 0);
                (peer.gateway_by, peer.run_by) = (Vec::new(), Vec::new());
                (peer.errors, peer.slow) = (Vec::new(), Vec::new());
                peer.warm = (slow_start > 0).then_some((now, 1));
            }
            At::Out { .. } => peer.warm = None,
            At::Half { .. } => {}
        }
        self.say(kind, name, reason, true);
    }

    pub(crate) fn open(&mut self, name: &str, reason: &str) {
        let (base, max) = (self.policy.base_ejection_time.0, self.policy.max_ejection_time.0);
        let peer = self.peer(name);
        if peer.number * base < max + base {
            peer.number += 1;
        }
        let time = (peer.number * base).min(max);
        self.turn(name, EventKind::Eject, At::Out { until: self.now + time }, reason);
    }

    pub(crate) fn ejected_by_hand(&mut self, name: &str) {
        self.open(name, "operator");
        self.peer(name).cause = None;
    }

    pub(crate) fn admit(&mut self, name: &str) {
        if self.peers[name].at != At::In {
            self.turn(name, EventKind::Readmit, At::In, "operator");
        }
    }

    /// A reload. A backend that nothing could have ejected under the new policy is readmitted at once.
    pub(crate) fn reload(&mut self, policy: Breaker) {
        self.policy = policy;
        for name in self.peers.keys().copied().collect::<Vec<_>>() {
            let Some(cause) = self.peers[name].cause.clone() else { continue };
            if !self.ejects_for(cause == "slow_rate") {
                self.turn(name, EventKind::Readmit, At::In, "detectors_off");
            }
        }
    }

    /// Whether a detector may eject for slow responses, or one for failures.
    fn ejects_for(&self, slow: bool) -> bool {
        let policy = &self.policy;
        let thresholds = [
            ("slow_rate", u32::from(policy.slow_rate_threshold) * u32::from(policy.slow_threshold.0 > 0)),
            ("consecutive_5xx", policy.consecutive_5xx),
            ("consecutive_gateway_failure", policy.consecutive_gateway_failure),
            ("error_rate", policy.error_rate_threshold.into()),
            ("success_rate", policy.success_rate_stdev_factor),
            ("failure_percentage", policy.failure_percentage_threshold.into()),
        ];
        let split = [
            ("consecutive_l4_failure", policy.consecutive_l4_failure),
            ("success_rate_l4", policy.success_rate_stdev_factor),
            ("failure_percentage_l4", policy.failure_percentage_threshold.into()),
        ];
        let split = split.into_iter().filter(|_| policy.split_l4_failures);
        let shadow: Vec<_> = policy.shadow.iter().map(|detector| detector.name()).collect();
        let ejects = |(name, threshold): (&str, u32)| {
            policy.enforce && threshold > 0 && !shadow.contains(&name) && (name == "slow_rate") == slow
        };
        thresholds.into_iter().chain(split).any(ejects)
    }

    /// An ejection is over.
    fn come_back(&mut self, name: &str, reason: &str) {
        if self.policy.half_open_trials == 0 || !self.policy.enforce {
            self.turn(name, EventKind::Readmit, At::In, reason);
        } else {
            self.turn(name, EventKind::Trial, At::Half { good: 0, empty: 0 }, reason);
        }
    }

    fn readmits(&self, name: &str) -> bool {
        let content = matches!(self.peers[name].probe, Probe::Absent | Probe::Up { .. });
        content || !self.policy.probe_readmits
    }

    /// The peers that get connections as long as one can.
    fn serving(&self) -> BTreeSet<&'static str> {
        let of = |wanted: fn(Probe) -> bool| -> BTreeSet<&'static str> {
            let fit = |peer: &Peer| {
                peer.at == At::In && peer.order == Order::Enabled && peer.reached && wanted(peer.probe)
            };
            self.peers.iter().filter(|(_, peer)| fit(peer)).map(|(name, _)| *name).collect()
        };
        let proven = of(|probe| matches!(probe, Probe::Absent | Probe::Up { .. }));
        if proven.is_empty() { of(|probe| probe == Probe::Unknown) } else { proven }
    }

    /// A peer that no frame reaches counts for nothing.
    fn within_reach(&self) -> impl Iterator<Item = &Peer> {
        self.peers.values().filter(|peer| peer.reached)
    }

    /// Fewer than `panic_threshold` serve.
    fn few(&self) -> bool {
        100 * self.serving().len() < usize::from(self.policy.panic_threshold) * self.within_reach().count()
    }

    fn usable(peer: &Peer) -> bool {
        peer.reached && peer.order != Order::Disabled && !matches!(peer.probe, Probe::Down { .. })
    }

    /// All probes fail at once, so nobody believes them: the peers that get connections then.
    fn in_spite_of_probes(&self) -> BTreeSet<&'static str> {
        let enabled = || self.peers.iter().filter(|(_, peer)| peer.order == Order::Enabled && peer.reached);
        let mut probes = enabled().map(|(_, peer)| peer.probe).peekable();
        if probes.peek().is_none() || !probes.all(|probe| matches!(probe, Probe::Down { .. })) {
            return BTreeSet::new();
        }
        enabled().filter(|(_, peer)| peer.at == At::In).map(|(name, _)| *name).collect()
    }

    /// Whether the maps give it new connections although it is half-open.
    fn offered(&self, name: &str) -> bool {
        let anyway = self.in_spite_of_probes();
        if !anyway.is_empty() {
            return anyway.contains(name);
        }
        let usable = Self::usable;
        let panic = self.few() && self.peers.values().any(usable);
        let peer = &self.peers[name];
        if panic { usable(peer) } else { peer.in_trial_slot && usable(peer) && peer.order == Order::Enabled }
    }

    /// Whether a peer may get new connections, whether or not the table contains it now.
    pub(crate) fn may_begin(&self, name: &str) -> bool {
        let anyway = self.in_spite_of_probes();
        if !anyway.is_empty() {
            return anyway.contains(name);
        }
        let peer = &self.peers[name];
        let out = matches!(peer.at, At::Out { .. }) || peer.order == Order::Draining;
        Self::usable(peer) && (self.few() || !out)
    }

    fn distrusted(&self, name: &str) -> bool {
        let Peer { heads, lost, .. } = self.peers[name];
        100 * lost > heads + lost
    }

    pub(crate) fn lose(&mut self, name: &str, lost: u64) {
        self.peer(name).lost += lost;
    }

    fn detected(&mut self, name: &str, reason: &str) {
        if self.peers[name].at != At::In {
            return;
        }
        let shadow = self.policy.shadow.iter().any(|detector| detector.name() == reason);
        let enforced = self.policy.enforce && !shadow;
        self.peer(name).detections += u32::from(enforced);
        let all = self.within_reach().count();
        let out = self.within_reach().filter(|peer| peer.at != At::In).count();
        let anyway = self.in_spite_of_probes();
        let used = if anyway.is_empty() { self.serving() } else { anyway };
        let left = used.into_iter().filter(|of| *of != name).count();
        let one = out == 0 && self.policy.always_eject_one;
        if self.distrusted(name) {
            self.say(EventKind::Refused, name, "evidence_lost", enforced);
        } else if 100 * (out + 1) > usize::from(self.policy.max_ejection_percent) * all && !one {
            self.say(EventKind::Refused, name, "ceiling", enforced);
        } else if left < self.policy.min_serving as usize {
            self.say(EventKind::Refused, name, "floor", enforced);
        } else if enforced {
            self.open(name, reason);
            self.peer(name).cause = Some(reason.to_owned());
        } else {
            self.say(EventKind::Eject, name, reason, false);
        }
    }

    /// A detection that too few clients saw.
    fn held(&mut self, name: &str, reason: &str) {
        if self.peers[name].at == At::In {
            self.suspected(name, reason, true);
        }
    }

    pub(crate) fn opaque(&mut self, name: &str, by: By) {
        self.client_counts = by.client_counts.or(self.client_counts);
        self.peer(name).heads += 1;
    }

    pub(crate) fn outcome(&mut self, name: &'static str, seen: Seen) {
        self.client_counts = seen.by.client_counts.or(self.client_counts);
        let policy = self.policy.clone();
        let now = self.now;
        let peer = self.peer(name);
        peer.heads += 1;
        match seen.l4 {
            Some(failure) => {
                let waits = seen.by.client_counts.is_some() && policy.confirm_l4_failures;
                let open = matches!(peer.at, At::Out { .. });
                if waits && !open && !peer.suspects.confirmed(now) {
                    self.suspect(name, failure, seen.by);
                } else {
                    self.counted(name, Seen { by: By::NOBODY, ..seen });
                }
            }
            None => {
                if policy.split_l4_failures || !(500..600).contains(&seen.status) {
                    peer.suspects.acquit();
                }
                self.counted(name, seen);
            }
        }
    }

    /// An L4 failure that waited and counts now.
    pub(crate) fn confirmed(&mut self, name: &'static str, failure: L4Failure) {
        self.counted(name, Seen { status: failure.status(), l4: Some(failure), slow: false, by: By::NOBODY });
    }

    /// An outcome that counts.
    fn counted(&mut self, name: &'static str, seen: Seen) {
        let (policy, now, distrusted_before) = (self.policy.clone(), self.now, self.peers[name].lost);
        let peer = self.peer(name);
        let split = seen.l4.is_some() && policy.split_l4_failures;
        let failure = seen.l4.is_some() || (500..600).contains(&seen.status);
        peer.interval.push((split, failure, seen.by.client));
        match peer.at {
            At::Out { .. } => {}
            At::Half { .. } if failure => self.failed_trial(name, distrusted_before, seen.by),
            At::Half { good, empty } => {
                peer.at = At::Half { good: good + 1, empty };
                if good + 1 >= policy.half_open_successes && self.readmits(name) {
                    self.turn(name, EventKind::Readmit, At::In, "half_open_successes");
                }
            }
            At::In => {
                let (found, held) = watch(&policy, peer, seen, failure, split, now);
                found.into_iter().for_each(|reason| self.detected(name, reason));
                held.into_iter().for_each(|reason| self.held(name, reason));
            }
        }
    }

    fn failed_trial(&mut self, name: &str, lost: u64, by: By) {
        let (enforced, least) = (self.policy.enforce, self.policy.min_clients);
        let distrusted = lost > 0 && self.distrusted(name);
        self.peer(name).trial_by.push(by.client);
        let alone = !suffice(&self.peers[name].trial_by, least, by.client_counts);
        if enforced && !distrusted && !alone {
            return self.open(name, "half_open_failure");
        }
        if let At::Half { good, .. } = &mut self.peer(name).at {
            *good = 0;
        }
        if alone && !distrusted {
            return self.suspected(name, "half_open_failure", enforced);
        }
        let (kind, reason) = if distrusted {
            (EventKind::Refused, "evidence_lost")
        } else {
            (EventKind::Eject, "half_open_failure")
        };
        self.say(kind, name, reason, enforced);
    }

    /// Frames reach a peer, or do not any more.
    pub(crate) fn path(&mut self, name: &str, reason: &str) {
        let reached = reason == "reachable";
        if std::mem::replace(&mut self.peer(name).reached, reached) != reached {
            self.say(EventKind::Path, name, reason, true);
        }
    }

    pub(crate) fn probed(&mut self, name: &str, passes: bool) {
        let (rise, fall) = (self.rise, self.fall);
        let peer = self.peer(name);
        let (probe, reason) = match (peer.probe, passes) {
            (Probe::Absent, _) => return,
            (Probe::Unknown, true) => (Probe::Up { failed: 0 }, Some("first_result")),
            (Probe::Unknown, false) => (Probe::Down { passed: 0 }, Some("first_result")),
            (Probe::Up { .. }, true) => (Probe::Up { failed: 0 }, None),
            (Probe::Up { failed }, false) if failed + 1 >= fall => (Probe::Down { passed: 0 }, Some("fall")),
            (Probe::Up { failed }, false) => (Probe::Up { failed: failed + 1 }, None),
            (Probe::Down { .. }, false) => (Probe::Down { passed: 0 }, None),
            (Probe::Down { passed }, true) if passed + 1 >= rise => (Probe::Up { failed: 0 }, Some("rise")),
            (Probe::Down { passed }, true) => (Probe::Down { passed: passed + 1 }, None),
        };
        peer.probe = probe;
        if let Some(reason) = reason {
            self.say(EventKind::Probe, name, reason, true);
        }
        let peer = &self.peers[name];
        let ends = passes && matches!((peer.at, peer.probe), (At::Out { .. }, Probe::Up { .. }));
        if self.policy.probe_uneject && ends {
            self.come_back(name, "probe_uneject");
        }
    }

    fn swept(&mut self) {
        let policy = self.policy.clone();
        let is_in = |name: &&'static str| self.peers[*name].at == At::In;
        let (inside, out): (Vec<&'static str>, Vec<&'static str>) =
            self.peers.keys().copied().partition(is_in);
        // The peers that could get connections in the interval that ends.
        let offered: BTreeSet<&str> = out.iter().copied().filter(|name| self.offered(name)).collect();
        for name in out {
            self.swept_out(name, offered.contains(name));
        }
        // The reference finds all detections before one of them acts.
        let scores = [false, true].map(|l4| self.scores(&inside, l4));
        for (l4, scores) in [false, true].into_iter().zip(&scores) {
            if !l4 || policy.split_l4_failures {
                self.compare(scores, l4);
            }
        }
        for name in inside {
            let peer = &self.peers[name];
            let half = policy.interval.0 - policy.interval.0 / 2;
            let responses = peer.interval.iter().any(|(split, ..)| !split);
            let earned = policy.backoff_decay == BackoffDecay::Time || (responses && peer.detections == 0);
            let in_service = self.now - peer.since >= half;
            if peer.at == At::In && in_service && earned {
                let peer = self.peer(name);
                peer.number = peer.number.saturating_sub(1);
            }
        }
        for peer in self.peers.values_mut() {
            (peer.interval, peer.detections) = (Vec::new(), 0);
            (peer.heads, peer.lost) = (0, 0);
            let trial = matches!(peer.at, At::Half { .. })
                && !matches!(peer.probe, Probe::Down { .. })
                && peer.reached;
            peer.in_trial_slot = trial && peer.order == Order::Enabled;
        }
    }

    fn swept_out(&mut self, name: &'static str, offered: bool) {
        let (policy, readmits) = (self.policy.clone(), self.readmits(name));
        let peer = self.peer(name);
        match peer.at {
            At::In => {}
            At::Out { until } => {
                if self.now >= until && readmits {
                    self.come_back(name, "ejection_time_over");
                }
            }
            At::Half { good, empty } => {
                let empty = if peer.interval.is_empty() { empty + u32::from(offered) } else { 0 };
                peer.at = At::Half { good, empty };
                if readmits && (policy.half_open_trials == 0 || !policy.enforce) {
                    self.turn(name, EventKind::Readmit, At::In, "ejection_time_over");
                } else if readmits && good >= policy.half_open_successes {
                    self.turn(name, EventKind::Readmit, At::In, "half_open_successes");
                } else if readmits && empty >= 3 && policy.half_open_exit == HalfOpenExit::Close {
                    self.turn(name, EventKind::Readmit, At::In, "no_traffic");
                }
            }
        }
    }

    /// Responses or connects of the interval: all, and good ones.
    fn scores(&self, inside: &[&'static str], l4: bool) -> Vec<(&'static str, (u32, u32))> {
        let score = |name: &'static str| -> (u32, u32) {
            let of = self.peers[name].interval.iter().filter(|(split, ..)| l4 || !split);
            let all = of.clone().count() as u32;
            (all, of.filter(|(split, failure, _)| if l4 { !split } else { !failure }).count() as u32)
        };
        inside.iter().map(|name| (*name, score(name))).collect()
    }

    fn compare(&mut self, scores: &[(&'static str, (u32, u32))], l4: bool) {
        let policy = self.policy.clone();
        let at_least = |least: u32| -> Vec<(&str, f64)> {
            let enough = scores.iter().filter(|(_, (all, _))| *all > 0 && *all >= least);
            enough.map(|(name, (all, good))| (*name, f64::from(*good) / f64::from(*all))).collect()
        };
        let suffix = if l4 { "_l4" } else { "" };
        let rates = at_least(policy.success_rate_min_responses);
        if policy.success_rate_stdev_factor > 0 && rates.len() >= policy.success_rate_min_backends as usize {
            let count = rates.len() as f64;
            let mean = rates.iter().map(|(_, rate)| rate).sum::<f64>() / count;
            let stdev = (rates.iter().map(|(_, rate)| (rate - mean).powi(2)).sum::<f64>() / count).sqrt();
            let threshold = mean - f64::from(policy.success_rate_stdev_factor) / 1000.0 * stdev;
            for (name, rate) in rates {
                self.close_call |= stdev > 1e-9 && (rate - threshold).abs() < 1e-6;
                if rate < threshold - 1e-6 {
                    self.detected_in_interval(name, &format!("success_rate{suffix}"), l4);
                }
            }
        }
        let rates = at_least(policy.failure_percentage_min_responses);
        let percent = f64::from(policy.failure_percentage_threshold);
        if percent > 0.0 && rates.len() >= policy.failure_percentage_min_backends as usize {
            for (name, rate) in rates {
                if 100.0 - 100.0 * rate >= percent - 1e-9 {
                    self.detected_in_interval(name, &format!("failure_percentage{suffix}"), l4);
                }
            }
        }
    }

    fn detected_in_interval(&mut self, name: &str, reason: &str, l4: bool) {
        let failures = self.peers[name].interval.iter().filter(|(split, failure, _)| !split && *failure);
        let by: Vec<_> = failures.map(|(.., client)| *client).collect();
        if l4 || suffice(&by, self.policy.min_clients, self.client_counts) {
            self.detected(name, reason);
        } else {
            self.held(name, reason);
        }
    }

    pub(crate) fn until(&mut self, t: u64) {
        loop {
            let rise =
                |peer: &Peer| peer.warm.map(|(since, step)| since + self.policy.slow_start.0 * step / 4);
            let next_rise = self.peers.values().filter_map(rise).min();
            let next_ask = self.peers.values().filter_map(|peer| peer.suspects.due()).min();
            if let Some(at) = next_ask.filter(|at| *at <= t && *at < self.sweep) {
                self.peers.values_mut().for_each(|peer| peer.suspects.ask_if_due(at));
                continue;
            }
            match next_rise {
                // At one instant the sweep comes first.
                Some(at) if at <= t && at < self.sweep => {
                    self.now = at;
                    self.warm();
                }
                Some(_) | None if self.sweep <= t => {
                    self.now = self.sweep;
                    self.sweep += self.policy.interval.0;
                    self.swept();
                }
                Some(_) | None => break,
            }
        }
        self.now = t;
    }

    fn warm(&mut self) {
        let (now, slow_start) = (self.now, self.policy.slow_start.0);
        for name in self.peers.keys().copied().collect::<Vec<_>>() {
            let Some((since, before)) = self.peers[name].warm else { continue };
            let due = |step: u64| step < 5 && since + slow_start * step / 4 <= now;
            let step = (before..).find(|step| !due(*step)).expect("there are five");
            if step > before {
                self.peer(name).warm = (step < 5).then_some((since, step));
                self.say(EventKind::Weight, name, "slow_start", true);
            }
        }
    }
}

/// Runs and windows: the detections of one outcome of a peer that is in.
fn watch(
    policy: &Breaker,
    peer: &mut Peer,
    seen: Seen,
    failure: bool,
    split: bool,
    now: u64,
) -> (Vec<&'static str>, Vec<&'static str>) {
    let (mut found, mut held) = (Vec::new(), Vec::new());
    let mut reached = |run: &mut u32, by: &mut Vec<Option<u8>>, threshold: u32, reason| {
        if threshold == 0 || *run < threshold {
            return;
        }
        if suffice(by, policy.min_clients, seen.by.client_counts) {
            found.push(reason);
            *run = 0;
            by.clear();
        } else {
            held.push(reason);
        }
    };
    if split {
        peer.l4 += 1;
        reached(&mut peer.l4, &mut Vec::new(), policy.consecutive_l4_failure, "consecutive_l4_failure");
        return (found, held);
    }
    peer.l4 = 0;
    let mut count = |goes_on: bool, run: &mut u32, by: &mut Vec<Option<u8>>, threshold: u32, reason| {
        if goes_on {
            *run += 1;
            by.push(seen.by.client);
            reached(run, by, threshold, reason);
        } else {
            *run = 0;
            by.clear();
        }
    };
    let (is_gateway, least) = ((502..=504).contains(&seen.status), policy.consecutive_gateway_failure);
    count(is_gateway, &mut peer.gateway, &mut peer.gateway_by, least, "consecutive_gateway_failure");
    count(failure, &mut peer.run, &mut peer.run_by, policy.consecutive_5xx, "consecutive_5xx");

    type Ring = Vec<(u64, bool, Option<u8>)>;
    let mut over = |ring: &mut Ring, bad: bool, (window, least, percent): (u64, u32, u8), reason| {
        ring.push((now, bad, seen.by.client));
        let bucket = |at: u64| at * 10 / window;
        ring.retain(|(at, ..)| bucket(now) - bucket(*at) < 10);
        let bad: Vec<_> = ring.iter().filter(|(_, bad, _)| *bad).map(|(.., client)| *client).collect();
        let total = ring.len();
        if percent == 0 || total < least as usize || 100 * bad.len() < usize::from(percent) * total {
            return;
        }
        if suffice(&bad, policy.min_clients, seen.by.client_counts) {
            found.push(reason);
            ring.clear();
        } else {
            held.push(reason);
        }
    };
    let limit = (policy.error_rate_window.0, policy.error_rate_min_responses, policy.error_rate_threshold);
    over(&mut peer.errors, failure, limit, "error_rate");
    let limit = (policy.slow_rate_window.0, policy.slow_rate_min_responses, policy.slow_rate_threshold);
    if policy.slow_threshold.0 > 0 && seen.l4.is_none() {
        over(&mut peer.slow, seen.slow, limit, "slow_rate");
    }
    (found, held)
}
