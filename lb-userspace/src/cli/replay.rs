//! `shunt replay`.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
};

use super::{
    args::{self, ReplayFormat},
    exit::{Exit, Failure},
    out::{self, Reader, Stream},
    palette::Palette,
    render::{self, EventLines},
    wiring,
};
use crate::{
    control::model::Document,
    replay::{
        self, InputError, Options, Record, Replay, Then, Unfit, Yardsticks,
        compare::{Comparison, Side},
    },
};

/// How many bytes one read takes.
const PIECE: usize = 256 << 10;

pub(super) fn run(args: &args::Replay) -> Result<Exit, Failure> {
    match args.compare.as_slice() {
        [a, b] => compare(args, [a, b]),
        _ => single(args),
    }
}

fn single(args: &args::Replay) -> Result<Exit, Failure> {
    let config = wiring::load(&args.config, Palette::of_stderr())?.core;
    let replay = Replay::new(config, options(args, Yardsticks::default()))?;
    let (name, mut input) = open(&args.events)?;
    let mut view = View::new(args.output.unwrap_or(ReplayFormat::Jsonl));
    let mut replays = [(None, replay)];
    let mut reader = Reader::Reading;
    let read = replay::read(&name, &mut input, &mut replays, |replays, idle| -> Result<Then, Failure> {
        let [(_, replay)] = replays else { return Ok(Then::GoOn) };
        while let Some(record) = replay.next_record() {
            reader = reader.and(view.show(&record)?);
        }
        if idle {
            reader = reader.and(view.out.flush()?);
        }
        Ok(if reader == Reader::Gone { Then::Stop } else { Then::GoOn })
    });
    // Output of the lines before a wrong line comes before the error about it.
    reader = reader.and(view.out.flush()?);
    read?;
    if reader == Reader::Gone {
        return Ok(Exit::Done);
    }
    let [(_, replay)] = replays;
    let summary = replay.summary();
    if view.format == ReplayFormat::Json {
        out::print(&(json(&summary)? + "\n"))?;
    } else {
        out::remark(render::summary(&summary, Palette::of_stderr()));
    }
    Ok(Exit::Done)
}

fn compare(args: &args::Replay, paths: [&Path; 2]) -> Result<Exit, Failure> {
    let as_json = match args.output {
        Some(ReplayFormat::Json) => true,
        Some(ReplayFormat::Table) | None => false,
        Some(ReplayFormat::Jsonl) => {
            return Err(Failure::message(Exit::Usage, "a comparison prints no events").remedy(
                "use `-o table` or `-o json` with --compare, or replay one configuration with `-c`",
            ));
        }
    };
    let mut configs = Vec::new();
    for path in paths {
        configs.push(wiring::load(path, Palette::of_stderr())?.core);
    }
    let yardsticks = Yardsticks::of(&configs);
    let names = paths.map(|path| path.display().to_string());
    let mut replays = Vec::new();
    for (name, config) in names.iter().zip(configs) {
        let replay = Replay::new(config, options(args, yardsticks.clone()))
            .map_err(|unfit| Failure::from(Unfit { message: format!("{name}: {unfit}"), ..unfit }))?;
        replays.push((Some(name.as_str()), replay));
    }
    let (input_name, mut input) = open(&args.events)?;
    replay::read(&input_name, &mut input, &mut replays, |replays, _| -> Result<Then, Failure> {
        for (_, replay) in replays {
            while replay.next_record().is_some() {}
        }
        Ok(Then::GoOn)
    })?;
    let mut sides = replays.iter().zip(&names);
    let mut side = || {
        let ((_, replay), name) = sides.next().expect("there are two");
        Side { config: name.clone(), summary: replay.summary() }
    };
    let comparison = Comparison::new(side(), side());
    if as_json {
        out::print(&(json(&comparison)? + "\n"))?;
    } else {
        out::print(&render::comparison(&comparison, Palette::of_stdout()))?;
    }
    Ok(Exit::Done)
}

fn options(args: &args::Replay, yardsticks: Yardsticks) -> Options {
    Options { seed: args.seed, service: args.service.clone(), yardsticks }
}

fn open(events: &Path) -> Result<(String, BufReader<Box<dyn Read>>), Failure> {
    let (name, input): (_, Box<dyn Read>) = if events == Path::new("-") {
        ("standard input".to_owned(), Box::new(io::stdin().lock()))
    } else {
        let name = events.display().to_string();
        let file = File::open(events).map_err(|source| {
            let exit = if source.kind() == io::ErrorKind::NotFound { Exit::Usage } else { Exit::Failed };
            Failure::new(exit, InputError::Io { name: name.clone(), source })
                .remedy("name a file of events, or - for standard input; `shunt run --record FILE` writes such a file")
        })?;
        (name, Box::new(file))
    };
    Ok((name, BufReader::with_capacity(PIECE, input)))
}

fn json(of: &impl serde::Serialize) -> Result<String, Failure> {
    serde_json::to_string(&Document::new(of)).map_err(|error| Failure::new(Exit::Failed, error))
}

impl From<InputError> for Failure {
    fn from(error: InputError) -> Self {
        let help = error.help().map(str::to_owned);
        let failure = Self::new(Exit::Failed, error);
        match help {
            Some(help) => failure.remedy(help),
            None => failure,
        }
    }
}

/// A replay that cannot begin.
impl From<Unfit> for Failure {
    fn from(unfit: Unfit) -> Self {
        let help = unfit.help.clone();
        Self::new(Exit::Usage, unfit).remedy(help)
    }
}

impl Reader {
    /// A reader that has gone does not come back.
    fn and(self, later: Self) -> Self {
        if self == Self::Gone { self } else { later }
    }
}

struct View {
    format: ReplayFormat,
    lines: EventLines,
    out: Stream,
    buffer: Vec<u8>,
}

impl View {
    fn new(format: ReplayFormat) -> Self {
        let lines = EventLines::relative(Palette::of_stdout());
        Self { format, lines, out: Stream::open(), buffer: Vec::new() }
    }

    fn show(&mut self, record: &Record) -> Result<Reader, Failure> {
        self.buffer.clear();
        match (self.format, record) {
            (ReplayFormat::Table, Record::Event(event)) => {
                self.buffer.extend_from_slice(self.lines.show(event).as_bytes());
            }
            (ReplayFormat::Jsonl, _) | (ReplayFormat::Table, Record::Snapshot(_)) => {
                serde_json::to_writer(&mut self.buffer, record)
                    .map_err(|error| Failure::new(Exit::Failed, error))?;
                self.buffer.push(b'\n');
            }
            (ReplayFormat::Json, _) => {}
        }
        self.out.put(&self.buffer)
    }
}
