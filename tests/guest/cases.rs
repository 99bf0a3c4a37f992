//! The cases of a mode that works: answers, bulk, an ejection and the death of the daemon under load.

use std::{
    io::{Read as _, Write as _},
    net::Shutdown,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lb_core::event::EventKind;
use lb_lab::{Shunt, clock, until, until_ok};
use lb_tests::{
    http,
    load::{Connections, Load, Sample},
    site::failed,
};
use nix::sys::signal::Signal;

use crate::stand::{NAMES, PATIENCE, SERVICES, Stand, echoes, serve, web};

/// Each way of each bulk transfer.
const BULK: usize = 4 << 20;

/// Requests a second of each load, two loads to a service.
const RATE: u64 = 4;

/// How many requests each load must get through while the daemon is dead, and again when it is back.
const ROUND: usize = 12;

/// Both backends of each service answer.
pub(crate) fn answers(stand: &Stand) -> Result<()> {
    for (name, vip, _) in SERVICES {
        for backend in NAMES {
            until(&format!("{backend} of {name} answers"), PATIENCE, || {
                http::get(&stand.client, web(vip), "/")
                    .is_ok_and(|answer| answer.status == 200 && answer.header("x-backend") == Some(backend))
            })?;
        }
    }
    Ok(())
}

/// Megabytes there and back arrive as they were sent.
pub(crate) fn bulk(stand: &Stand) -> Result<()> {
    let said: Vec<u8> = (0..BULK).map(|at| b'a' + ((at ^ at >> 9) % 26) as u8).collect();
    for (name, vip, _) in SERVICES {
        let exchange = || -> Result<Vec<u8>> {
            let mut stream = http::connect(&stand.client, echoes(vip), PATIENCE)?;
            stream.write_all(&said)?;
            stream.shutdown(Shutdown::Write)?;
            let mut heard = Vec::new();
            stream.read_to_end(&mut heard)?;
            Ok(heard)
        };
        let heard = exchange().with_context(|| format!("bulk by {name}"))?;
        ensure!(heard == said.to_ascii_uppercase(), "bulk by {name}: {} bytes came back", heard.len());
    }
    Ok(())
}

/// A load on each service: with a connection for each request, and with connections that are kept.
pub(crate) struct Loads(Vec<(&'static str, Connections, Load)>);

impl Loads {
    pub(crate) fn start(stand: &Stand) -> Self {
        let ways = [Connections::Each, Connections::Kept];
        let all = SERVICES.iter().flat_map(|(name, vip, _)| ways.map(|way| (*name, *vip, way)));
        let load = |vip, way| Load::patient(&stand.client, web(vip), RATE, 2, way, PATIENCE / 2);
        Self(all.map(|(name, vip, way)| (name, way, load(vip, way))).collect())
    }

    /// Waits until each has had so many more answers.
    pub(crate) fn go_on(&self, what: &str, answers: usize) -> Result<()> {
        let before: Vec<usize> = self.0.iter().map(|(_, _, load)| load.samples().len()).collect();
        until(what, PATIENCE, || {
            self.0.iter().zip(&before).all(|((_, _, load), before)| load.samples().len() >= before + answers)
        })?;
        Ok(())
    }

    /// Ends them. All requests must have had an answer.
    pub(crate) fn stop(self) -> Result<Vec<(&'static str, Connections, Vec<Sample>)>> {
        let ended: Vec<_> = self.0.into_iter().map(|(name, way, load)| (name, way, load.stop())).collect();
        for (name, way, samples) in &ended {
            let failed = failed(samples);
            let first = failed.first();
            ensure!(failed.is_empty(), "{name}, {way:?}: {} requests failed: {first:?}", failed.len());
        }
        Ok(ended)
    }
}

/// A backend that answers 500 is ejected by each service. From then on nobody new is sent there. Answers how many requests
/// there were.
pub(crate) fn ejection(stand: &mut Stand, shunt: &Shunt) -> Result<usize> {
    let events = shunt.events()?;
    let loads = Loads::start(stand);
    loads.go_on("requests are answered", 2)?;
    stand.backends[1].fail()?;
    let mut ejected = Vec::new();
    for (name, _, _) in SERVICES {
        let (heard, _) = events.wait(&format!("{name} ejects web-1"), 0, PATIENCE, |event| {
            event.kind == EventKind::Eject
                && event.service == name
                && event.backend.as_deref() == Some(NAMES[1])
        })?;
        ensure!(heard.event.reason == "consecutive_5xx", "{}", heard.event.sentence());
        ejected.push((name, heard.at));
    }
    loads.go_on("requests are answered beside the ejected backend", ROUND)?;
    stand.backends[1].heal()?;
    let mut requests = 0;
    for (name, way, samples) in loads.stop()? {
        requests += samples.len();
        let at = ejected.iter().find(|(service, _)| *service == name).context("each service ejects")?.1;
        // Connections that are kept stay (`on_eject` is "drain").
        let after = samples.iter().filter(|sample| way == Connections::Each && sample.begun > at);
        for sample in after {
            ensure!(
                sample.answer == Ok(200) && sample.backend.as_deref() == Some(NAMES[0]),
                "{name}: {sample:?}"
            );
        }
    }
    for (name, _, _) in SERVICES {
        // On a machine that is busy otherwise the daemon may take longer to answer than the command waits.
        until_ok(&format!("{name} admits it again"), PATIENCE, || {
            shunt.ask(&["backend", "admit", &format!("{name}/{}", NAMES[1])])
        })?;
    }
    serve(shunt)?;
    Ok(requests)
}

/// The daemon is killed under load and started again. Answers how many requests there were.
pub(crate) fn kill(stand: &Stand, shunt: &mut Shunt) -> Result<usize> {
    let loads = Loads::start(stand);
    loads.go_on("requests are answered", 2)?;
    shunt.process().signal(Signal::SIGKILL)?;
    shunt.process().wait(PATIENCE)?;
    loads.go_on("requests are answered without the daemon", ROUND)?;
    shunt.start_again()?;
    loads.go_on("requests are answered with the daemon", ROUND)?;
    let mut requests = 0;
    for (name, way, samples) in loads.stop()? {
        requests += samples.len();
        let wrong = samples.iter().find(|sample| sample.answer != Ok(200));
        ensure!(wrong.is_none(), "{name}, {way:?}: {wrong:?}");
    }
    serve(shunt)?;
    Ok(requests)
}

/// How long something takes.
pub(crate) fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, Duration)> {
    let begun = clock::now();
    let value = work()?;
    Ok((value, clock::now() - begun))
}
