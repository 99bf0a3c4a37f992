//! Time passing on the scene: clients work, the view follows, keys and signals are heard.

use std::{thread, time::Duration};

use anyhow::{Result, bail};
use lb_core::{event::Event, snapshot::BackendSnapshot, time::Instant};
use lb_lab::{Heard, clock, signals};
use lb_userspace::control::model::Status;

use super::{
    load::{Load, Sample},
    moment::{Moment, Report, STEPS, Step, backend_of},
    scene::{BAD, Scene, vip},
    view::View,
};

const TURN: Duration = Duration::from_millis(40);
const REFRESH: Duration = Duration::from_millis(400);

#[derive(Debug)]
pub(super) struct Stage {
    view: View,
    begun: Duration,
    refreshed: Duration,
    status: Status,
    /// Between the engine's clock and ours.
    engine_began: Duration,
    steps: Vec<Step>,
    load: Option<(&'static str, Load)>,
    finished: Vec<(&'static str, Vec<Sample>)>,
    /// Events before this place are shown already.
    shown: usize,
    quit: bool,
    /// Last: the clients above end first.
    pub(super) scene: Scene,
}

impl Stage {
    pub(super) fn new(scene: Scene, view: View) -> Result<Self> {
        let status = scene.shunt.status()?;
        let booted = clock::unix().saturating_sub(clock::now());
        Ok(Self {
            view,
            begun: clock::now(),
            refreshed: Duration::ZERO,
            engine_began: Duration::from_millis(status.started_unix_ms).saturating_sub(booted),
            status,
            steps: vec![Step::Awaited; STEPS.len()],
            load: None,
            finished: Vec::new(),
            shown: 0,
            quit: false,
            scene,
        })
    }

    /// When the engine's clock stood there, by ours, to a few milliseconds.
    pub(super) fn when(&self, t: Instant) -> Duration {
        self.engine_began + Duration::from_millis(t.0)
    }

    /// Sends the clients to another service.
    pub(super) fn visit(&mut self, service: &'static str) {
        self.rest();
        self.load = Some((service, Load::start(self.scene.client(), vip(service))));
    }

    /// Sends the clients home.
    pub(super) fn rest(&mut self) {
        if let Some((service, load)) = self.load.take() {
            self.finished.push((service, load.finish()));
        }
    }

    pub(super) fn samples(&self) -> Vec<Sample> {
        self.load.as_ref().map(|(_, load)| load.samples()).unwrap_or_default()
    }

    pub(super) fn has_quit(&self) -> bool {
        self.quit
    }

    /// Lets time pass until `seen` answers something, or `limit` is over, or a person quits (`None`).
    pub(super) fn wait<T>(
        &mut self,
        limit: Duration,
        mut seen: impl FnMut(&mut Self) -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        let deadline = clock::now() + limit;
        loop {
            self.turn()?;
            if let Some(found) = seen(self)? {
                return Ok(Some(found));
            }
            if self.quit || clock::now() >= deadline {
                return Ok(None);
            }
            thread::sleep(TURN);
        }
    }

    /// Waits for an event from a place on; answers the place behind it too.
    pub(super) fn event(
        &mut self,
        from: usize,
        limit: Duration,
        fits: impl Fn(&Event) -> bool,
    ) -> Result<Option<(Heard, usize)>> {
        self.wait(limit, |stage| {
            let heard = stage.scene.events.since(from);
            let found = heard.iter().position(|heard| fits(&heard.event));
            Ok(found.map(|place| (heard[place].clone(), from + place + 1)))
        })
    }

    /// A backend as status shows it, once it fits.
    pub(super) fn backend(
        &mut self,
        limit: Duration,
        service: &str,
        name: &str,
        fits: impl Fn(&BackendSnapshot) -> bool,
    ) -> Result<Option<BackendSnapshot>> {
        self.wait(limit, |stage| {
            stage.refresh()?;
            Ok(backend_of(&stage.status, service, name).filter(|found| fits(found)).cloned())
        })
    }

    pub(super) fn status(&self) -> &Status {
        &self.status
    }

    pub(super) fn record(&mut self, number: usize, step: Step) {
        self.view.step(clock::now() - self.begun, number, &step);
        self.steps[number] = step;
    }

    /// A remark between steps.
    pub(super) fn say(&mut self, text: &str) {
        self.view.remark(clock::now() - self.begun, text);
    }

    /// Takes everything down.
    pub(super) fn strike(mut self) -> Report {
        self.rest();
        let heard = self.scene.events.since(0);
        Report {
            lasted: clock::now() - self.begun,
            steps: self.steps,
            samples: self.finished,
            events: heard.into_iter().map(|heard| heard.event).collect(),
        }
    }

    fn turn(&mut self) -> Result<()> {
        if signals::interrupted() {
            bail!("interrupted");
        }
        for key in std::iter::from_fn(|| self.view.key()) {
            match key {
                'b' => self.scene.bad.fail()?,
                'h' => self.scene.bad.heal()?,
                'q' => self.quit = true,
                _ => {}
            }
        }
        if let Some(ended) = self.scene.shunt.process().ended() {
            bail!("shunt run ended by itself ({ended}):\n{}", self.scene.shunt.log());
        }
        for heard in self.scene.events.since(self.shown) {
            self.shown += 1;
            self.view.event(clock::now() - self.begun, &heard.event);
        }
        if self.view.is_live() && clock::now() >= self.refreshed + REFRESH {
            self.refresh()?;
            self.draw();
        }
        Ok(())
    }

    fn refresh(&mut self) -> Result<()> {
        self.status = self.scene.shunt.status()?;
        self.refreshed = clock::now();
        Ok(())
    }

    fn draw(&self) {
        let samples = self.samples();
        let service = self.load.as_ref().map_or(super::scene::APP, |(service, _)| service);
        self.view.draw(&Moment {
            since_begin: clock::now() - self.begun,
            service,
            status: &self.status,
            samples: &samples,
            events: &self.scene.events.since(0),
            steps: &self.steps,
        });
    }
}

/// Trial connections that the kernel has given to the bad backend so far.
pub(super) fn trials_of(status: &Status, service: &str) -> u64 {
    let found = status.traffic.iter().find(|traffic| traffic.service == service && traffic.backend == BAD);
    found.map_or(0, |traffic| traffic.counters.trials)
}
