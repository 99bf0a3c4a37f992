//! The same fault before every balancer that looks at responses: when does a backend that turned bad get no more?
//!
//! Two backends; clients that keep their connections and clients that connect for each request, both at
//! a fixed rate. One backend answers with 500 from a moment on, so its third bad answer is the one that decides, and
//! what reaches it later came too late. All is counted from that answer being handed to the backend's kernel, by
//! one clock in one process. Checks of health go on being answered well: the peer has only the responses to go by.
//! Between two requests nothing can be seen, so a time is as fine as the rate: the mean number of requests
//! that still came divided by the rate says more than each of them.

use std::{fmt::Write as _, path::Path, thread, time::Duration};

use anyhow::{Context, Result, bail};
use lb_core::snapshot::BreakerState;
use lb_lab::{Topology, clock, signals, until};
use lb_tests::{
    http::get,
    lab::at,
    load::{Connections, Load, Sample},
};
use serde::Serialize;

use super::server::{Bad, Server};
use crate::{
    peers::{self, Peer, Rig, Running, THRESHOLD},
    statistics::Spread,
};

/// Those that look at responses; Shunt in both of its ways to treat what lives.
pub(crate) const PEERS: &[Peer] = &[Peer::Nat, Peer::Reset, Peer::HaproxyHttp, Peer::EnvoyHttp];

const BACKENDS: [&str; 2] = ["app0", "app1"];
const PORT: u16 = 8080;
/// Requests a second on kept connections, so many of them, and with a connection each.
const KEPT: (u64, usize) = (3_000, 16);
const EACH: (u64, usize) = (1_000, 8);
/// So long a backend is watched: less than it stays out.
const WATCHED: Duration = Duration::from_millis(800);
const PATIENCE: Duration = Duration::from_secs(15);

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) peer: &'static str,
    pub(crate) ejections: usize,
    /// To the beginning of the last new connection that the bad backend answered, 0 if there was none, in microseconds.
    pub(crate) last_new_us: Spread,
    /// To the beginning of the first one after that, which went elsewhere.
    pub(crate) first_elsewhere_us: Spread,
    /// To the arrival of the last request of a kept connection at the bad backend, 0 if there was none.
    pub(crate) last_kept_us: Spread,
    /// Requests that reached the bad backend after the deciding answer, by new and by kept connections.
    pub(crate) new_after: Spread,
    pub(crate) kept_after: Spread,
    /// Their mean number, divided by the rate at which they came before: the mean time in which it still got them.
    pub(crate) mean_new_us: f64,
    pub(crate) mean_kept_us: f64,
    /// Bad answers and broken connections that clients saw.
    pub(crate) client_errors: Spread,
    /// Ejections after which kept connections stayed with the bad backend for as long as it was watched.
    pub(crate) kept_stayed: usize,
}

/// One ejection.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Ejection {
    last_new: Duration,
    first_elsewhere: Duration,
    last_kept: Duration,
    new_after: usize,
    kept_after: usize,
    client_errors: usize,
}

pub(super) fn run(wanted: &[Peer], ejections: u32, shunt: &Path) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for peer in Peer::installed(wanted) {
        let mut runs = Vec::new();
        let rig = rig(peer, shunt)?;
        for number in 0..ejections {
            eprintln!("verdict: {}, ejection {} of {ejections}", peer.name(), number + 1);
            let last = number + 1 == ejections;
            let run = eject(&rig, number as usize % BACKENDS.len(), last);
            runs.push(run.with_context(|| format!("{}, ejection {}", peer.name(), number + 1))?);
        }
        rows.push(row(peer, &runs).context("no ejections")?);
    }
    Ok(rows)
}

fn rig(peer: Peer, shunt: &Path) -> Result<Rig<Vec<Server>>> {
    Rig::new(peer, &BACKENDS, PORT, shunt, |_, hosts| {
        let start = |(number, host)| Server::start(host, at(Topology::address(number), PORT));
        Ok(hosts.iter().enumerate().map(start).collect::<Result<_, _>>()?)
    })
}

/// Breaks a backend, watches what still reaches it and, unless it is the last time, heals it and waits until it is back.
fn eject(rig: &Rig<Vec<Server>>, number: usize, last: bool) -> Result<Ejection> {
    let (vip, bad) = (peers::vip().into(), &rig.servers[number]);
    let before: Vec<_> = rig.servers.iter().map(Server::served).collect();
    let kept = Load::start(&rig.client, vip, KEPT.0, KEPT.1, Connections::Kept);
    let each = Load::start(&rig.client, vip, EACH.0, EACH.1, Connections::Each);
    until("all backends serve both kinds of clients", PATIENCE, || {
        let now = rig.servers.iter().map(Server::served);
        now.zip(&before).all(|(now, before)| now.0 > before.0 + 50 && now.1 > before.1 + 20)
    })?;
    bad.forget();
    let broken = clock::now();
    bad.fail(true);
    until("a backend that turned bad answers", PATIENCE, || bad.bad().len() >= THRESHOLD)?;
    let deciding = bad.bad()[THRESHOLD - 1].left;
    thread::sleep((deciding + WATCHED).saturating_sub(clock::now()));
    if signals::interrupted() {
        bail!("interrupted");
    }
    let (kept, each) = (kept.stop(), each.stop());
    let seen = outside(BACKENDS[number], &bad.bad(), [&kept, &each], broken)?;
    bad.fail(false);
    if !last {
        back(rig, number)?;
    }
    Ok(seen)
}

/// Waits until a healed backend is in again. Requests go on meanwhile: some peers try it with these.
fn back(rig: &Rig<Vec<Server>>, number: usize) -> Result<()> {
    let vip = peers::vip().into();
    until("the healed backend is back", PATIENCE, || {
        let answer = get(&rig.client, vip, "/work");
        let back = match &rig.running {
            // A backend on trial is not back.
            Running::Shunt(shunt) => shunt.status().is_ok_and(|status| {
                status.snapshot.services[0].backends[number].breaker == BreakerState::Closed
            }),
            Running::Program(_) | Running::Kernel => true,
        };
        back && answer.is_ok_and(|answer| answer.header("x-backend") == Some(BACKENDS[number]))
    })?;
    Ok(())
}

/// An ejection as the bad backend and the clients saw it.
fn outside(name: &str, bad: &[Bad], [kept, each]: [&[Sample]; 2], broken: Duration) -> Result<Ejection> {
    let deciding = bad.get(THRESHOLD - 1).context("the backend sent fewer bad responses than it takes")?.left;
    let after = |of_kept: bool| bad[THRESHOLD..].iter().filter(move |bad| bad.kept == of_kept);
    let by = |sample: &&Sample| sample.backend.as_deref() == Some(name);
    let late = each.iter().filter(by).map(|sample| sample.begun).max().unwrap_or_default().max(deciding);
    let elsewhere = each.iter().filter(|sample| sample.answer == Ok(200) && !by(sample));
    let first = elsewhere.map(|sample| sample.begun).filter(|begun| *begun > late).min();
    let wrong = |sample: &&Sample| sample.ended >= broken && sample.answer != Ok(200);
    Ok(Ejection {
        last_new: late - deciding,
        first_elsewhere: first.context("no new connection went elsewhere")? - deciding,
        last_kept: after(true).map(|bad| bad.arrived).max().unwrap_or_default().saturating_sub(deciding),
        new_after: after(false).count(),
        kept_after: after(true).count(),
        client_errors: kept.iter().chain(each).filter(wrong).count(),
    })
}

fn row(peer: Peer, runs: &[Ejection]) -> Option<Row> {
    let us =
        |value: fn(&Ejection) -> Duration| Spread::of(runs.iter().map(|run| value(run).as_secs_f64() * 1e6));
    let count = |value: fn(&Ejection) -> usize| Spread::of(runs.iter().map(|run| value(run) as f64));
    let mean = |rate: u64, after: fn(&Ejection) -> usize| {
        let share = rate as f64 / BACKENDS.len() as f64;
        runs.iter().map(after).sum::<usize>() as f64 / runs.len() as f64 / share * 1e6
    };
    Some(Row {
        peer: peer.name(),
        ejections: runs.len(),
        last_new_us: us(|run| run.last_new)?,
        first_elsewhere_us: us(|run| run.first_elsewhere)?,
        last_kept_us: us(|run| run.last_kept)?,
        new_after: count(|run| run.new_after)?,
        kept_after: count(|run| run.kept_after)?,
        mean_new_us: mean(EACH.0, |run| run.new_after),
        mean_kept_us: mean(KEPT.0, |run| run.kept_after),
        client_errors: count(|run| run.client_errors)?,
        kept_stayed: runs.iter().filter(|run| run.last_kept > WATCHED / 2).count(),
    })
}

pub(super) fn table(rows: &[Row]) -> String {
    let mut text = String::new();
    let mut line = |line: String| writeln!(text, "{line}").expect("a string takes everything");
    line(format!(
        "beside others: {} backends, {} requests/s on {} kept connections and {} new connections/s; \
         µs from the 3rd bad answer leaving the backend, median / worst",
        BACKENDS.len(),
        KEPT.0,
        KEPT.1,
        EACH.0
    ));
    line(format!(
        "  {:<13} {:>9}  {:>15} {:>17} {:>6}  {:>19} {:>6}  {:>11}",
        "", "ejections", "last new to it", "first elsewhere", "mean", "last of kept to it", "mean", "errors"
    ));
    for row in rows {
        let pair = |spread: &Spread| format!("{:.0} / {:.0}", spread.median, spread.most);
        let (last, mean) = if row.kept_stayed * 2 > row.ejections {
            ("they stay".to_owned(), "-".to_owned())
        } else {
            (pair(&row.last_kept_us), format!("{:.0}", row.mean_kept_us))
        };
        line(format!(
            "  {:<13} {:>9}  {:>15} {:>17} {:>6.0}  {last:>19} {mean:>6}  {:>11}",
            row.peer,
            row.ejections,
            pair(&row.last_new_us),
            pair(&row.first_elsewhere_us),
            row.mean_new_us,
            pair(&row.client_errors),
        ));
    }
    line(
        "  (mean: requests that still came, divided by their rate. Finer than the gap between two requests, \
         which bounds what each other figure can show)"
            .to_owned(),
    );
    text
}

/// Numbers that cannot be true.
pub(super) fn implausible(rows: &[Row]) -> Vec<String> {
    let mut found = Vec::new();
    for row in rows {
        if row.first_elsewhere_us.most > WATCHED.as_secs_f64() * 1e6 {
            found.push(format!("verdict {}: new connections went on to the bad backend: {row:?}", row.peer));
        }
        if row.client_errors.least < THRESHOLD as f64 {
            found.push(format!("verdict {}: fewer errors than it takes: {row:?}", row.peer));
        }
        if row.kept_stayed > 0 && row.peer != Peer::Nat.name() {
            found.push(format!("verdict {}: kept connections stayed: {row:?}", row.peer));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn sample(begun: u64, backend: &str, answer: u16) -> Sample {
        let (begun, ended) = (ms(begun), ms(begun + 1));
        Sample {
            due: begun,
            begun,
            ended,
            answer: Ok(answer),
            client: None,
            head_at: Some(ended),
            backend: Some(backend.to_owned()),
        }
    }

    #[test]
    fn what_comes_after_the_third_came_too_late() {
        let bad = |at: u64, kept| Bad { arrived: ms(at), left: ms(at), kept };
        let bad = [bad(1, true), bad(2, false), bad(10, true), bad(12, false), bad(14, true)];
        let each = [
            sample(1, "app0", 500),
            sample(11, "app0", 500),
            sample(13, "app1", 200),
            sample(15, "app1", 200),
        ];
        let kept = [sample(1, "app0", 500), sample(9, "app0", 500), sample(13, "app0", 500)];
        assert_eq!(
            outside("app0", &bad, [&kept, &each], ms(0)).expect("all is there"),
            Ejection {
                last_new: ms(1),
                first_elsewhere: ms(3),
                last_kept: ms(4),
                new_after: 1,
                kept_after: 1,
                client_errors: 5,
            }
        );
        assert!(outside("app0", &bad[..2], [&kept, &each], ms(0)).is_err());
    }
}
