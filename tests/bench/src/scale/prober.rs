//! The daemon's loop, with nothing but probes to do.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use lb_core::{
    Engine, Settings,
    config::Config,
    io::{Input, Output},
    snapshot::ProbeState,
    time::Instant,
};
use lb_lab::{clock, signals};
use lb_userspace::probe::Prober;
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike,
};
use tokio::{runtime, sync::mpsc, time::timeout};

use super::{Plan, Sample};

/// Until every backend is up.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn run(config: Config, plan: Plan) -> Result<Vec<Sample>> {
    // As the daemon has it.
    let runtime = runtime::Builder::new_multi_thread().enable_all().build().context("starting tokio")?;
    runtime.block_on(async {
        let mut daemon = Daemon::new(config);
        let begun = clock::now();
        while !daemon.all_up() {
            ensure!(clock::now() - begun < PATIENCE, "not all backends came up: {:?}", daemon.failure);
            daemon.run(Duration::from_millis(500)).await?;
        }
        let mut samples = Vec::new();
        for _ in 0..plan.repetitions {
            samples.push(daemon.run(Duration::from_secs(plan.seconds.into())).await?);
        }
        Ok(samples)
    })
}

struct Daemon {
    engine: Engine,
    prober: Prober,
    results: mpsc::Receiver<Input>,
    begun: Duration,
    /// Text of the last probe that did not pass.
    failure: Option<String>,
}

impl Daemon {
    fn new(config: Config) -> Self {
        let (sender, results) = mpsc::channel(Prober::LIMIT);
        let engine = Engine::new(Settings { seed: 1, ..Settings::default() }, Instant(0));
        let mut daemon =
            Self { engine, prober: Prober::new(sender), results, begun: clock::now(), failure: None };
        daemon.handle(Input::Config(Arc::new(config)));
        daemon
    }

    fn all_up(&self) -> bool {
        let snapshot = self.engine.snapshot(self.now());
        snapshot
            .services
            .iter()
            .flat_map(|service| &service.backends)
            .all(|backend| backend.probe == ProbeState::Up)
    }

    async fn run(&mut self, span: Duration) -> Result<Sample> {
        let (begun, cpu) = (clock::now(), cpu()?);
        let (mut probes, mut failures) = (0, 0);
        loop {
            if signals::interrupted() {
                bail!("interrupted");
            }
            let elapsed = clock::now() - begun;
            if elapsed >= span {
                return Ok(Sample { elapsed, cpu: self::cpu()? - cpu, probes, failures });
            }
            let deadline = self.engine.next_deadline().unwrap_or(Instant(u64::MAX));
            let wait = Duration::from_millis(deadline.0.saturating_sub(self.now().0)).min(span - elapsed);
            match timeout(wait, self.results.recv()).await {
                Ok(input) => {
                    let input = input.context("the prober is ours")?;
                    probes += 1;
                    if let Some(failure) = failed(&input) {
                        failures += 1;
                        self.failure = Some(failure);
                    }
                    self.handle(input);
                }
                Err(_) => self.handle(Input::Tick),
            }
        }
    }

    fn handle(&mut self, input: Input) {
        self.engine.handle(input, self.now());
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Dataplane(plan) => {
                    self.engine.handle(Input::Applied { plan: plan.id, result: Ok(()) }, self.now());
                }
                Output::Probe(request) => self.prober.start(request),
                Output::Confirm(_) | Output::Event(_) => {}
            }
        }
    }

    fn now(&self) -> Instant {
        Instant((clock::now() - self.begun).as_millis() as u64)
    }
}

fn failed(input: &Input) -> Option<String> {
    use lb_core::io::ProbeResult;
    let Input::Probe { result, .. } = input else { return None };
    match result {
        ProbeResult::Pass | ProbeResult::Status(200) => None,
        ProbeResult::Status(_) | ProbeResult::Fail(_) => Some(result.to_string()),
    }
}

/// Of this process, in user space and in the kernel.
fn cpu() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).context("asking for the CPU time")?;
    let microseconds = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(Duration::from_micros(microseconds.unsigned_abs()))
}
