//! An attack, and one play of it.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    thread,
    time::Duration,
};

use anyhow::Result;
use lb_core::event::{Event, EventKind};
use lb_lab::clock;
use lb_tests::{
    load::{Connections, Load},
    swarm::Swarm,
};

use super::{row::Row, stage::Stage};

/// The sources of a batch begin and end their connections together.
const BATCH: usize = 2500;

/// Requests a second of the good traffic.
const GOOD: u64 = 20;

/// The next sweep and the next probe still belong to this attack.
const SETTLE: Duration = Duration::from_millis(2500);

#[derive(Clone, Copy)]
pub(crate) struct Attack {
    pub(crate) name: &'static str,
    pub(crate) service: Kind,
    /// Of one batch of clients.
    pub(crate) play: fn(&mut Swarm, &Play<'_>),
}

/// The service that is attacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Healthy,
    /// Its servers speak TLS. They answer 400 to the good traffic, which does not.
    Tls,
    /// Its backends see the addresses of their clients.
    Dnat,
    /// One more backend is bad, and out when the attack begins.
    Bad,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    Usual,
    /// L4 failures apart, slow answers and late ones count.
    Strict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sources {
    /// One address with 60 ports.
    One,
    /// 100 addresses that hear no answer.
    Forged,
    /// 10 000 addresses that complete handshakes.
    Many,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beside {
    Nothing,
    Good,
}

pub(crate) struct Play<'s> {
    pub(crate) stage: &'s Stage,
    pub(crate) attack: &'s Attack,
    pub(crate) number: usize,
    pub(crate) policy: Policy,
    pub(crate) sources: Sources,
    pub(crate) beside: Beside,
    /// No port is used in two runs.
    pub(crate) run: u16,
}

impl Play<'_> {
    pub(crate) fn service(&self) -> String {
        self.policy.service(self.attack)
    }

    pub(crate) fn vip(&self) -> SocketAddr {
        self.policy.vip(self.number)
    }

    pub(crate) fn row(&self) -> Result<Row> {
        let load = (self.beside == Beside::Good)
            .then(|| Load::start(&self.stage.topology.client, self.vip(), GOOD, 2, Connections::Each));
        if self.attack.service == Kind::Bad {
            self.stage.convict(&self.service(), self.vip())?;
        }
        let begun = self.stage.events.since(0).len();
        let from = clock::now();
        let (clients, mut handshakes) = (self.clients(), 0);
        for (batch, clients) in clients.chunks(BATCH).enumerate() {
            let seed = 1 + batch as u64 + 100 * u64::from(self.run) + 10_000 * self.number as u64;
            let (line, hears) = (self.stage.line()?, self.sources != Sources::Forged);
            let mut swarm = Swarm::new(line, self.vip(), clients.iter().copied(), hears, seed);
            (self.attack.play)(&mut swarm, self);
            handshakes += swarm.handshakes;
        }
        thread::sleep(SETTLE);
        let samples = load.map(Load::stop).unwrap_or_default();
        let samples: Vec<_> = samples.into_iter().filter(|sample| sample.begun >= from).collect();
        let events: Vec<Event> =
            self.stage.events.since(begun).into_iter().map(|heard| heard.event).collect();
        let well = if self.attack.service == Kind::Tls { 400 } else { 200 };
        let failed = samples.iter().filter(|of| of.answer != Ok(well)).count();
        Ok(Row { handshakes, good: samples.len(), failed, ..self.judge(&events) })
    }

    fn judge(&self, events: &[Event]) -> Row {
        let service = self.service();
        let is_bad = |event: &&Event| event.backend.as_deref() == Some("bad");
        let of_service = || events.iter().filter(|event| event.service == service && event.backend.is_some());
        let convicts = |event: &&Event| match event.kind {
            EventKind::Eject | EventKind::Refused => true,
            EventKind::Probe => event.to == "down",
            _ => false,
        };
        let convicted: Vec<&Event> = of_service().filter(|event| !is_bad(event)).filter(convicts).collect();
        let mut reasons: Vec<String> =
            convicted.iter().map(|event| format!("{} {}", event.kind, event.reason)).collect();
        reasons.sort();
        reasons.dedup();
        let freed = || of_service().filter(is_bad).filter(|event| event.kind == EventKind::Readmit);
        if self.attack.service == Kind::Bad {
            reasons.extend(freed().map(|event| event.reason.to_string()));
        }
        Row {
            attack: self.attack.name,
            policy: self.policy,
            sources: self.sources,
            beside: self.beside,
            ejected: convicted.len(),
            reasons,
            freed: (self.attack.service == Kind::Bad).then(|| freed().count()),
            handshakes: 0,
            good: 0,
            failed: 0,
        }
    }

    /// All of 10.64.0.0/14, in which no host is.
    fn clients(&self) -> Vec<SocketAddr> {
        let service = (2 * self.number + self.policy as usize) as u32;
        let base = match self.sources {
            Sources::One => 0x0a40_0000 + 1 + service,
            Sources::Forged => 0x0a41_0000 + (service << 8),
            Sources::Many => 0x0a42_0000 + ((self.policy as u32) << 14),
        };
        let port = 20_000 + 64 * (self.run % 600);
        let client = |offset: u32, port| SocketAddr::from((Ipv4Addr::from(base + offset), port));
        match self.sources {
            Sources::One => (0..60).map(|offset| client(0, port + offset)).collect(),
            Sources::Forged => (0..100).map(|offset| client(offset, port)).collect(),
            Sources::Many => (0..10_000).map(|offset| client(offset, port)).collect(),
        }
    }
}

impl Policy {
    pub(crate) const ALL: [Self; 2] = [Self::Usual, Self::Strict];

    pub(crate) fn service(self, attack: &Attack) -> String {
        format!("{}-{self}", attack.name)
    }

    pub(crate) fn vip(self, number: usize) -> SocketAddr {
        let last = 1 + 2 * number + self as usize;
        SocketAddr::from(([203, 0, 113, u8::try_from(last).expect("fewer than 127 attacks")], 80))
    }
}

impl Sources {
    pub(crate) const ALL: [Self; 3] = [Self::One, Self::Forged, Self::Many];
}

impl Beside {
    pub(crate) const ALL: [Self; 2] = [Self::Nothing, Self::Good];
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Usual => "usual",
            Self::Strict => "strict",
        })
    }
}

impl fmt::Display for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::One => "1",
            Self::Forged => "100",
            Self::Many => "10000",
        })
    }
}

impl fmt::Display for Beside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Nothing => "-",
            Self::Good => "good",
        })
    }
}
