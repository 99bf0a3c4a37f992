//! The rules of suspicion: which L4 failures count, and how many clients must have seen a failure.

use lb_core::{
    event::EventKind,
    io::{ClientCounts, L4Failure},
};

use crate::plain::{By, Reference};

/// L4 failures of one backend that wait, and its confirmation.
#[derive(Clone, Default)]
pub(crate) struct Suspects {
    waiting: Vec<(L4Failure, By)>,
    /// One came since the last confirmation began.
    fresh: bool,
    /// Under way, and whether nobody had a good answer since it began.
    asking: Option<bool>,
    rest: u64,
    confirmed: u64,
    /// Different clients have agreed.
    agreed: bool,
    run: u32,
    reported: Option<u64>,
}

impl Suspects {
    pub(crate) fn confirmed(&self, now: u64) -> bool {
        now < self.confirmed
    }

    pub(crate) fn acquit(&mut self) {
        self.waiting.clear();
        (self.fresh, self.agreed, self.confirmed, self.run) = (false, false, 0, 0);
        self.asking = self.asking.map(|_| false);
    }

    /// The breaker has changed.
    pub(crate) fn turn(&mut self) {
        self.acquit();
    }

    pub(crate) fn due(&self) -> Option<u64> {
        (self.asking.is_none() && self.fresh).then_some(self.rest)
    }

    pub(crate) fn ask_if_due(&mut self, now: u64) {
        if self.due().is_some_and(|at| at <= now) {
            self.asking = Some(true);
            self.fresh = false;
        }
    }
}

fn of_connect(failure: L4Failure) -> bool {
    [L4Failure::ConnectRefused, L4Failure::ConnectTimeout].contains(&failure)
}

fn prompt(failure: L4Failure, by: By) -> bool {
    [L4Failure::Reset, L4Failure::NoResponse].contains(&failure) && !by.late
}

impl Reference {
    pub(crate) fn suspected(&mut self, name: &str, reason: &str, enforced: bool) {
        let now = self.now;
        let reported = &mut self.peer(name).suspects.reported;
        if reported.is_none_or(|at| now - at >= 1000) {
            *reported = Some(now);
            self.say(EventKind::Suspected, name, reason, enforced);
        }
    }

    pub(crate) fn suspect(&mut self, name: &'static str, failure: L4Failure, by: By) {
        let (now, split) = (self.now, self.policy.split_l4_failures);
        let suspects = &mut self.peer(name).suspects;
        suspects.waiting.push((failure, by));
        if suspects.waiting.len() > 64 {
            suspects.waiting.remove(0);
        }
        suspects.fresh = true;
        suspects.run += 1;
        self.agree(name);
        let (reason, least) = match split {
            true => ("consecutive_l4_failure", self.policy.consecutive_l4_failure),
            false => ("consecutive_5xx", self.policy.consecutive_5xx),
        };
        let least = if least == 0 { 5 } else { least };
        let suspects = &mut self.peer(name).suspects;
        if suspects.run >= least {
            suspects.run = 0;
            self.suspected(name, reason, true);
        }
        self.peer(name).suspects.ask_if_due(now);
    }

    /// Different clients saw it.
    fn agree(&mut self, name: &'static str) {
        // The probe of these histories is one of HTTP.
        let (answers, client_counts) = (self.probed, self.client_counts.unwrap_or_default());
        let (least, suspects) = (self.policy.min_clients, &mut self.peer(name).suspects);
        if answers && client_counts.prefixes < 2 && client_counts.addresses < 2 {
            return;
        }
        let counts = |(failure, by): &(L4Failure, By)| match answers {
            true => prompt(*failure, *by),
            false => !of_connect(*failure),
        };
        let all: Vec<_> = suspects.waiting.iter().copied().filter(|of| counts(of)).collect();
        let clients: Vec<_> = all.iter().map(|(_, by)| by.client).collect();
        if all.is_empty() || !(suspects.agreed || suffice(&clients, least, Some(client_counts))) {
            return;
        }
        suspects.agreed = true;
        suspects.waiting.retain(|of| !counts(of));
        suspects.run = 0;
        all.into_iter().for_each(|(failure, _)| self.confirmed(name, failure));
    }

    /// The end of a confirmation. False: none is under way.
    pub(crate) fn confirm(&mut self, name: &'static str, passes: bool, answered: bool) -> bool {
        let (now, answers) = (self.now, self.probed);
        let suspects = &mut self.peer(name).suspects;
        let Some(nobody_answered) = suspects.asking.take() else { return false };
        suspects.rest = now + 100;
        let mut all = Vec::new();
        if !passes && !answered && nobody_answered {
            (suspects.confirmed, suspects.run, suspects.fresh) = (now + 1000, 0, false);
            all.append(&mut suspects.waiting);
        } else if passes && answers {
            suspects.waiting.retain(|(failure, by)| prompt(*failure, *by));
        } else {
            suspects.waiting.retain(|(failure, _)| !of_connect(*failure));
        }
        all.into_iter().for_each(|(failure, _)| self.confirmed(name, failure));
        self.agree(name);
        self.peer(name).suspects.ask_if_due(now);
        true
    }
}

/// Whether so many different clients saw a failure as must agree. `None` among them: it needs none.
pub(crate) fn suffice(clients: &[Option<u8>], least: u32, client_counts: Option<ClientCounts>) -> bool {
    let Some(ClientCounts { prefixes, addresses }) = client_counts else { return true };
    let mut known: Vec<u8> = clients.iter().copied().flatten().collect();
    if known.len() < clients.len() || least < 2 {
        return true;
    }
    if prefixes > 1 {
        // The first two clients are of one prefix.
        known.iter_mut().for_each(|client| *client = (*client).max(1));
    }
    known.sort_unstable();
    known.dedup();
    let several = if prefixes > 1 { prefixes } else { addresses };
    several < 2 || known.len() as u32 >= least.min(several)
}
