//! `shunt detach`.

use std::{
    fs,
    io::{self, BufRead as _, IsTerminal as _},
    path::{Path, PathBuf},
};

use super::{
    args,
    exit::{Exit, Failure},
    out,
    palette::Palette,
    wiring::{self, DEFAULT_BPFFS, DEFAULT_INSTANCE},
};
use crate::{
    config::{self, File},
    control::socket,
    dataplane::bpf::{self, DetachError, Detached},
    journal, state,
};

/// An instance, and where it leaves something.
struct Instance {
    name: String,
    bpffs: PathBuf,
    files: Vec<PathBuf>,
}

pub(super) fn run(args: &args::Detach) -> Result<Exit, Failure> {
    let of = instance(args)?;
    let left: Vec<PathBuf> = if args.purge { left(&of.files) } else { Vec::new() };
    if args.purge && !args.yes && !agrees(&of, &left)? {
        return Err(Failure::message(Exit::Refused, "nothing was removed"));
    }
    let detached = detach(&of)?;
    let nothing = detached == Detached::default();
    // A name that nobody has is probably a slip. Without one, nothing to detach is what was wanted.
    if nothing && left.is_empty() && args.instance.is_some() {
        let error = format!("there is no instance {}", of.name);
        return Err(Failure::message(Exit::Usage, error).remedy(others(&of.bpffs)));
    }
    if nothing {
        out::print(&format!("instance {}: nothing is attached; {}\n", of.name, others(&of.bpffs)))?;
    } else {
        let s = if detached.links == 1 { "" } else { "s" };
        let Detached { links, maps } = detached;
        let name = &of.name;
        out::print(&format!("instance {name}: detached from {links} interface{s}, {maps} maps removed\n"))?;
    }
    for file in left {
        remove(&file).map_err(|error| unremoved(&file, error))?;
        out::print(&format!("removed {}\n", file.display()))?;
    }
    Ok(Exit::Done)
}

/// The instance of the options. Its files are where its configuration says, or else at the usual places.
fn instance(args: &args::Detach) -> Result<Instance, Failure> {
    let usual = Path::new(args::DEFAULT_CONFIG);
    let file = match (&args.config, &args.instance) {
        (Some(path), _) => Some(wiring::load(path, Palette::of_stderr())?),
        (None, Some(_)) => None,
        // The file of the default instance may name other places. One that cannot be read names none.
        (None, None) if args.purge => config::load(usual).ok().filter(|of| of.instance == DEFAULT_INSTANCE),
        (None, None) => None,
    };
    if let (Some(file), Some(_)) = (&file, &args.config) {
        return Ok(Instance { name: file.instance.clone(), bpffs: file.bpffs.clone(), files: files(file) });
    }
    let name = args.instance.clone().unwrap_or_else(|| DEFAULT_INSTANCE.to_owned());
    let bpffs = args.bpffs.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_BPFFS));
    let files = match &file {
        Some(file) => files(file),
        None => files_of(&config::default_socket(&name), &config::default_state_file(&name), None),
    };
    Ok(Instance { name, bpffs, files })
}

fn files(file: &File) -> Vec<PathBuf> {
    files_of(&file.control_socket, &file.state_file, file.record.as_ref().map(|record| record.path.as_path()))
}

/// Everything that a daemon may have made, whether or not it is there, and the folders of its own.
fn files_of(control_socket: &Path, state_file: &Path, record: Option<&Path>) -> Vec<PathBuf> {
    let mut all = socket::files(control_socket);
    all.extend(state::files(state_file));
    all.extend(record.into_iter().flat_map(journal::files));
    all
}

fn left(files: &[PathBuf]) -> Vec<PathBuf> {
    files.iter().filter(|file| fs::symlink_metadata(file).is_ok()).cloned().collect()
}

fn agrees(of: &Instance, left: &[PathBuf]) -> Result<bool, Failure> {
    let mut question =
        format!("instance {}: this ends forwarding and all connections through it, and removes\n", of.name);
    for file in left {
        question += &format!("  {}\n", file.display());
    }
    if left.is_empty() {
        question += "  no file\n";
    }
    out::remark(question.trim_end());
    if !io::stdin().is_terminal() {
        return Err(Failure::message(Exit::Usage, "standard input is no terminal, so nobody can agree")
            .remedy("`--yes` removes it without a question"));
    }
    out::remark("remove it? [y/N]");
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(|error| Failure::new(Exit::Failed, error))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn detach(of: &Instance) -> Result<Detached, Failure> {
    bpf::detach(&of.bpffs, &of.name).map_err(|error| match error {
        DetachError::Running(_) => Failure::new(Exit::Refused, error)
            .remedy("stop the daemon first; forwarding continues without it"),
        DetachError::Untrusted(ref untrusted) => {
            let remedy = untrusted.remedy();
            Failure::new(Exit::HostNotAble, error).remedy(remedy)
        }
        DetachError::Io { ref source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            Failure::new(Exit::HostNotAble, error).remedy("run it as root")
        }
        DetachError::Io { .. } => Failure::new(Exit::Failed, error),
    })
}

fn others(bpffs: &Path) -> String {
    match bpf::instances(bpffs).join(", ") {
        others if others.is_empty() => "no instance has pins here".to_owned(),
        others => format!("instances that have pins here: {others}"),
    }
}

/// Removes a file, and its folder if that is Shunt's own and empty now.
fn remove(file: &Path) -> io::Result<()> {
    fs::remove_file(file)?;
    if let Some(folder) = file.parent().filter(|folder| folder.ends_with("shunt")) {
        // Another instance, or a person, has something there.
        let _ = fs::remove_dir(folder);
    }
    Ok(())
}

fn unremoved(file: &Path, error: io::Error) -> Failure {
    let exit = match error.kind() {
        io::ErrorKind::PermissionDenied => Exit::HostNotAble,
        _ => Exit::Failed,
    };
    let error = anyhow::Error::new(error).context(format!("cannot remove {}", file.display()));
    Failure::new(exit, error).remedy("run it as root")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_an_instance_left_is_found() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = dir.path().join("shunt");
        fs::create_dir(&folder).expect("made");
        let at = |name: &str| folder.join(name);
        let made = [
            "control.sock",
            "control.sock.lock",
            "state.json",
            "state.json.new",
            "state.json.damaged-1740830340",
            "events.jsonl",
            "events.jsonl.1",
            "events.jsonl.17",
        ];
        let foreign = ["other.json", "events.jsonl.old", "state.json.damaged-x", "events.jsonl2"];
        for name in made.into_iter().chain(foreign) {
            fs::write(at(name), "x").expect("written");
        }
        let all = files_of(&at("control.sock"), &at("state.json"), Some(&at("events.jsonl")));
        let mut found = left(&all);
        found.sort();
        let mut expected: Vec<_> = made.iter().map(|name| at(name)).collect();
        expected.sort();
        assert_eq!(found, expected);
        for file in &found {
            remove(file).expect("removed");
        }
        assert!(folder.exists(), "it holds files of others");
        for name in foreign {
            remove(&at(name)).expect("removed");
        }
        assert!(!folder.exists(), "it is empty");
    }
}
