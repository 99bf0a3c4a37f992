//! `shunt status`.

use std::{
    io::{self, IsTerminal},
    path::Path,
    time::Duration,
};

use anyhow::Context;
use lb_core::{codes::DiscoveryCode, snapshot::Effective};
use tokio::{
    signal::unix::{SignalKind, signal},
    time,
};

use super::{
    args::{self, StatusFormat},
    exit::{Exit, Failure},
    out::{self, Reader},
    palette::{Paint, Palette},
    render::{self, Wide},
    wiring::DEFAULT_BPFFS,
};
use crate::{
    attach_mode::Condition,
    control::{
        client::{Client, ClientError},
        model::Status,
    },
    dataplane::bpf,
};

const REDRAW: Duration = Duration::from_secs(1);

pub(super) async fn run(client: &Client, args: &args::Status) -> Result<Exit, Failure> {
    let palette = Palette::of_stdout();
    if args.watch {
        return watch(client, args, palette).await;
    }
    let json = client.status_json(args.service.as_deref()).await.map_err(without_daemon)?;
    let parsed = || serde_json::from_slice(&json).map_err(ClientError::Garbled);
    let text = match wide(args.output) {
        Some(wide) => render::status(&parsed()?, wide, &palette),
        None => format!("{}\n", String::from_utf8_lossy(&json)),
    };
    let exit = if args.check { health(&parsed()?) } else { Exit::Done };
    out::print(&text)?;
    Ok(exit)
}

/// Without a daemon the pins say what still forwards.
fn without_daemon(error: ClientError) -> Failure {
    let is_away = matches!(error, ClientError::Unreachable { .. });
    let failure = Failure::from(error);
    if !is_away {
        return failure;
    }
    let seen = bpf::forwarding(Path::new(DEFAULT_BPFFS));
    let remedy = failure.remedy.clone().unwrap_or_default();
    failure.remedy(format!("{remedy}\nnote: {}", still_forwards(&seen)))
}

fn still_forwards(seen: &io::Result<Vec<(String, Vec<String>)>>) -> String {
    match seen {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            "as root, this also says what forwards without a daemon".to_owned()
        }
        Err(error) => {
            format!("the pins cannot be read, so what forwards without a daemon is not known: {error}")
        }
        Ok(all) if all.is_empty() => "no instance forwards here without a daemon".to_owned(),
        Ok(all) => {
            let one = |(instance, on): &(String, Vec<String>)| {
                format!("instance {instance} forwards on {}", on.join(", "))
            };
            let all: Vec<String> = all.iter().map(one).collect();
            format!("{}, with or without a daemon; `shunt detach` ends that", all.join("; "))
        }
    }
}

/// `None`: the format is JSON.
fn wide(format: StatusFormat) -> Option<Wide> {
    match format {
        StatusFormat::Table => Some(Wide(false)),
        StatusFormat::Wide => Some(Wide(true)),
        StatusFormat::Json => None,
    }
}

/// The exit code of `--check`: that of the worst service, of the interfaces, and of discovery.
fn health(status: &Status) -> Exit {
    let attached = status.interfaces.iter().all(|interface| interface.condition == Condition::Attached);
    let current = status.discovery.iter().all(|of| of.code == DiscoveryCode::Current);
    let mut worst = if attached && current { Exit::Done } else { Exit::Degraded };
    for service in &status.snapshot.services {
        let serving = service.regular().filter(|backend| backend.effective == Effective::Serving).count();
        if serving == 0 {
            return Exit::BelowFloor;
        }
        if serving < service.regular().count() {
            worst = Exit::Degraded;
        }
    }
    worst
}

/// Continues when the daemon is away, because the operator wants to see when it returns.
async fn watch(client: &Client, args: &args::Status, palette: Palette) -> Result<Exit, Failure> {
    let Some(wide) = wide(args.output).filter(|_| io::stdout().is_terminal()) else {
        return Err(Failure::message(
            Exit::Usage,
            "--watch draws on a terminal, and standard output is none, or the format is JSON",
        )
        .remedy("follow `shunt events -f -o jsonl` instead"));
    };
    // A wrong service name or a missing daemon is an error before the screen changes.
    let mut text = render::status(&client.status(args.service.as_deref()).await?, wide, &palette);
    // One listener for the whole time: a Ctrl-C also counts while the daemon is slow.
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for Ctrl-C")?;
    let screen = Screen::take()?;
    loop {
        if out::print(&frame(&text))? == Reader::Gone {
            return Ok(Exit::Done);
        }
        let next = async {
            time::sleep(REDRAW).await;
            client.status(args.service.as_deref()).await
        };
        text = tokio::select! {
            answer = next => match answer {
                Ok(status) => render::status(&status, wide, &palette),
                Err(error) => palette.paint(Paint::Bad, &Failure::from(error).to_string()) + "\n",
            },
            _ = interrupt.recv() => break,
        };
    }
    // The last state stays on the normal screen.
    drop(screen);
    out::print(&text)?;
    Ok(Exit::Done)
}

/// Draws over the last frame without a flicker: each line clears its rest, the end clears the lines below.
fn frame(text: &str) -> String {
    let lines: String = text.lines().map(|line| format!("{line}\x1b[K\n")).collect();
    format!("\x1b[H{lines}\x1b[J")
}

/// The alternate screen of the terminal, without a cursor, until it is dropped.
struct Screen;

impl Screen {
    fn take() -> Result<Self, Failure> {
        out::print("\x1b[?1049h\x1b[?25l")?;
        Ok(Self)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // If the terminal is gone, there is nothing to restore.
        let _ = out::print("\x1b[?25h\x1b[?1049l");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::fixture;

    #[test]
    fn health_is_that_of_the_worst_service() {
        let mut status = fixture::status();
        assert_eq!(health(&status), Exit::Degraded);

        status.snapshot.services[1].backends[0].effective = Effective::Ejected;
        assert_eq!(health(&status), Exit::BelowFloor);

        for backend in status.snapshot.services.iter_mut().flat_map(|service| &mut service.backends) {
            backend.effective = Effective::Serving;
        }
        assert_eq!(health(&status), Exit::Done);

        status.interfaces[0].condition = Condition::NoLink;
        assert_eq!(health(&status), Exit::Degraded);
        status.interfaces[0].condition = Condition::Attached;

        status.discovery = vec![fixture::discovery(DiscoveryCode::Current)];
        assert_eq!(health(&status), Exit::Done);
        status.discovery[0].code = DiscoveryCode::Missing;
        assert_eq!(health(&status), Exit::Degraded);
        status.discovery.clear();

        // A backend on trial does not serve yet.
        status.snapshot.services[0].backends[2].effective = Effective::Trial;
        assert_eq!(health(&status), Exit::Degraded);
    }

    #[test]
    fn without_a_daemon_it_says_what_still_forwards() {
        let on = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let seen =
            Ok(vec![("blue".to_owned(), on(&["eth1"])), ("default".to_owned(), on(&["eth0", "eth2"]))]);
        assert_eq!(
            still_forwards(&seen),
            "instance blue forwards on eth1; instance default forwards on eth0, eth2, with or without a daemon; \
             `shunt detach` ends that"
        );
        assert_eq!(still_forwards(&Ok(Vec::new())), "no instance forwards here without a daemon");
        let denied = still_forwards(&Err(io::ErrorKind::PermissionDenied.into()));
        assert_eq!(denied, "as root, this also says what forwards without a daemon");
    }

    #[test]
    fn frames_clear_what_was_longer_before() {
        assert_eq!(frame("a\nb\n"), "\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J");
    }
}
