use std::time::Duration;

use clap::{CommandFactory, error::ErrorKind};

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split(' '))
}

#[test]
fn the_definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_shows_examples() {
    fn visit(command: &clap::Command) {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(help.contains("Examples:"), "{} has no examples", command.get_name());
        command.get_subcommands().filter(|command| !command.is_hide_set()).for_each(visit);
    }
    visit(&Cli::command());
}

#[test]
fn examples_parse() {
    fn visit(command: &clap::Command, seen: &mut usize) {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        for line in help.lines().filter_map(|line| line.split_once("shunt ").map(|(_, line)| line)) {
            // Up to the pipe, the redirection, the other command or the remark.
            let end = [" |", " >", " &&", "   "].iter().filter_map(|mark| line.find(mark)).min();
            let line = format!("shunt {}", line[..end.unwrap_or(line.len())].trim_end());
            parse(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
            *seen += 1;
        }
        command.get_subcommands().for_each(|command| visit(command, seen));
    }
    let mut seen = 0;
    visit(&Cli::command(), &mut seen);
    assert!(seen >= 20, "only {seen} examples were found");
}

#[test]
fn the_socket_is_global() {
    for line in ["shunt -s /a status", "shunt status -s /a", "shunt run --socket /a"] {
        assert_eq!(parse(line).expect(line).socket.as_deref(), Some("/a".as_ref()), "{line}");
    }
}

#[test]
fn defaults() {
    let Command::Run(run) = parse("shunt run").expect("valid").command else { panic!("another command") };
    assert_eq!(run.config, PathBuf::from("/etc/shunt/shunt.toml"));
    let Command::Status(status) = parse("shunt status").expect("valid").command else {
        panic!("another command")
    };
    assert_eq!((status.output, status.service, status.check), (StatusFormat::Table, None, false));
    let Command::Events(events) = parse("shunt events -f -o jsonl").expect("valid").command else {
        panic!("another command")
    };
    assert_eq!((events.follow, events.since, events.output), (true, None, EventsFormat::Jsonl));
}

#[test]
fn wrong_command_lines_are_usage_errors() {
    for (line, kind) in [
        ("shunt", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand),
        ("shunt stauts", ErrorKind::InvalidSubcommand),
        ("shunt status -o xml", ErrorKind::InvalidValue),
        ("shunt status --check --watch", ErrorKind::ArgumentConflict),
        ("shunt events --since soon", ErrorKind::ValueValidation),
        ("shunt detach --instance a -c b", ErrorKind::ArgumentConflict),
    ] {
        let error = parse(line).expect_err(line);
        assert_eq!(error.kind(), kind, "{line}");
        assert_eq!(error.exit_code(), 2, "{line}");
    }
}

#[test]
fn orders_are_parsed_or_refused() {
    let Command::Backend(Backend::Drain(hold)) =
        parse("shunt backend drain web/web-2 --for 1h30m --wait --timeout 5m").expect("valid").command
    else {
        panic!("another command")
    };
    assert_eq!(hold.backend, Named { service: "web".to_owned(), backend: "web-2".to_owned() });
    assert_eq!(hold.term.duration.map(|time| time.as_secs()), Some(5400));
    assert_eq!(
        (hold.wait.wait, hold.wait.timeout, hold.force),
        (true, Some(Duration::from_secs(300)), false)
    );
    for (line, kind) in [
        ("shunt backend drain web-2", ErrorKind::ValueValidation),
        ("shunt backend drain /web-2", ErrorKind::ValueValidation),
        ("shunt backend drain web/web-2 --for soon", ErrorKind::ValueValidation),
        ("shunt backend drain web/web-2 --for 0s", ErrorKind::ValueValidation),
        ("shunt backend enable web/web-2 --for 1m", ErrorKind::UnknownArgument),
        ("shunt backend drain web/web-2 --timeout 1m", ErrorKind::MissingRequiredArgument),
        ("shunt backend weight web/web-2", ErrorKind::MissingRequiredArgument),
        ("shunt backend weight web/web-2 0", ErrorKind::ValueValidation),
        ("shunt backend weight web/web-2 7 --reset", ErrorKind::ArgumentConflict),
        ("shunt explain 10.0.0.1 web", ErrorKind::ValueValidation),
        ("shunt why web", ErrorKind::ValueValidation),
    ] {
        let error = parse(line).expect_err(line);
        assert_eq!(error.kind(), kind, "{line}");
        assert_eq!(error.exit_code(), 2, "{line}");
    }
    assert!(parse("shunt explain [2001:db8::1]:443 web").is_ok());
}
