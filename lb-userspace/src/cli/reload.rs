//! `shunt reload`.

use super::{
    args::{self, Plain},
    exit::{Exit, Failure},
    out,
};
use crate::control::{
    client::Client,
    model::{Document, Reloaded},
};

pub(super) async fn run(client: &Client, args: &args::Reload) -> Result<Exit, Failure> {
    let reloaded = client.reload(args.dry_run, args.force).await?;
    let text = match args.output {
        Plain::Table => table(&reloaded),
        Plain::Json => {
            let json = serde_json::to_string(&Document::new(&reloaded))
                .map_err(|error| Failure::new(Exit::Failed, error))?;
            format!("{json}\n")
        }
    };
    out::print(&text)?;
    // A dry run says what the reload would say.
    let refused = args.dry_run && !args.force && !reloaded.hazards.is_empty();
    Ok(if refused { Exit::Refused } else { Exit::Done })
}

fn table(reloaded: &Reloaded) -> String {
    let Reloaded { config_generation, changes, needs_restart, hazards, dry_run } = reloaded;
    let mut lines: Vec<String> = changes.iter().map(|change| change.says.clone()).collect();
    if !needs_restart.is_empty() {
        lines.push(format!("with a restart only: {}", needs_restart.join(", ")));
    }
    lines.extend(hazards.iter().map(|hazard| format!("hazard: {hazard}")));
    lines.push(match (dry_run, changes.is_empty()) {
        (true, _) if !hazards.is_empty() => {
            "nothing was changed: this was a dry run, and only `--force` makes the reload".to_owned()
        }
        (true, true) => "nothing would change".to_owned(),
        (true, false) => "nothing was changed: this was a dry run".to_owned(),
        (false, true) => format!("reloaded, nothing changed (generation {config_generation})"),
        (false, false) => format!("reloaded (generation {config_generation})"),
    });
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::model::{Change, ChangeCode, Hazard, HazardCode};

    fn change(says: &str) -> Change {
        Change { code: ChangeCode::BackendAdded, says: says.to_owned() }
    }

    #[test]
    fn changes_are_listed() {
        let reloaded = |dry_run, changes: &[&str], needs_restart: &[&str]| Reloaded {
            config_generation: 3,
            changes: changes.iter().map(|says| change(says)).collect(),
            needs_restart: needs_restart.iter().map(ToString::to_string).collect(),
            hazards: Vec::new(),
            dry_run,
        };
        let text = table(&reloaded(false, &["web/web-4: added at 10.0.0.14:8080"], &["log"]));
        let expected =
            "web/web-4: added at 10.0.0.14:8080\nwith a restart only: log\nreloaded (generation 3)\n";
        assert_eq!(text, expected);
        assert_eq!(table(&reloaded(false, &[], &[])), "reloaded, nothing changed (generation 3)\n");
        assert_eq!(table(&reloaded(true, &["x"], &[])), "x\nnothing was changed: this was a dry run\n");
        let hazards = vec![Hazard {
            code: HazardCode::InterfaceInUse,
            subject: "eth1".to_owned(),
            path: None,
            message: "3 connections".to_owned(),
        }];
        let expected = "x\nhazard: eth1: 3 connections\n\
                        nothing was changed: this was a dry run, and only `--force` makes the reload\n";
        assert_eq!(table(&Reloaded { hazards, ..reloaded(true, &["x"], &[]) }), expected);
    }
}
