//! Where the command line meets the rest of the program.

use std::path::Path;

use super::{
    args,
    check::Checked,
    exit::{Exit, Failure},
    logging,
    palette::Palette,
};

/// Runs until a signal. `socket` overrides the one of the configuration.
pub async fn run_daemon(config: &Path, socket: Option<&Path>) -> Result<Exit, Failure> {
    logging::init("info")?;
    let _ = (config, socket);
    Err(not_wired("run"))
}

/// Reads and checks a configuration. An error: it could not be read.
pub fn check(config: &Path, palette: Palette) -> Result<Checked, Failure> {
    let _ = (config, palette);
    Err(not_wired("check"))
}

/// Removes what is pinned; says what that was.
pub fn detach(args: &args::Detach) -> Result<Vec<String>, Failure> {
    let _ = args;
    Err(not_wired("detach"))
}

/// The demo. Prints for itself. `script`: without a person.
pub fn demo(script: bool, palette: Palette) -> Result<Exit, Failure> {
    let _ = (script, palette);
    Err(not_wired("demo"))
}

/// The commented configuration.
pub fn example() -> Result<&'static str, Failure> {
    Err(not_wired("config example"))
}

fn not_wired(command: &str) -> Failure {
    Failure::message(Exit::Failed, format!("{command}: not wired"))
}
