//! A configuration that is wrong: `check` and `run` say the same, and exit with 3.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use anyhow::Result;
use lb_lab::{Host, Lab};
use lb_tests::{
    answer::Answer,
    attempt::Attempt,
    lab::{Need, shunt, skipped},
};

/// A file as it should be, but for one line.
const FILE: &str = r#"interfaces = ["lo"]
nat_ports = "1024-32767"
[service.web]
vip = "203.0.113.10:80"
mode = "nat"
[service.web.backends]
web-1 = "10.0.0.11:8080"
web-2 = "10.0.0.12:8080"
[service.web.probe.http]
path = "/healthz"
interval = "2s"
[service.web.breaker]
consecutive_5xx = 3
max_ejection_percent = 50
"#;

/// A kind of mistake: the line and what stands there instead, where the error is found, what is said, what is
/// marked, and the remedy.
struct Wrong {
    line: usize,
    text: &'static str,
    at: &'static str,
    says: &'static str,
    marks: &'static str,
    help: &'static str,
}

const WRONG: &[Wrong] = &[
    Wrong {
        line: 2,
        text: "nat_ports = \"1024-32767",
        at: "2:24",
        says: "invalid basic string",
        marks: "^",
        help: "close the string with `\"` on the same line",
    },
    Wrong {
        line: 14,
        text: "max_ejection_precent = 50",
        at: "14:1",
        says: "unknown key `max_ejection_precent`",
        marks: "^^^^^^^^^^^^^^^^^^^^",
        help: "did you mean `max_ejection_percent`?",
    },
    Wrong {
        line: 1,
        text: "interfaces = \"lo\"",
        at: "1:14",
        says: "expected an array of interfaces, found a string",
        marks: "^^^^",
        help: "write for example `interfaces = [\"eth0\"]`",
    },
    Wrong {
        line: 14,
        text: "max_ejection_percent = 101",
        at: "14:24",
        says: "101 is out of range",
        marks: "^^^",
        help: "write a number from 0 to 100",
    },
    Wrong {
        line: 5,
        text: "mode = \"nut\"",
        at: "5:8",
        says: "`nut` is not a value of `mode`",
        marks: "^^^^^",
        help: "did you mean `\"nat\"`?",
    },
    Wrong {
        line: 11,
        text: "interval = \"2 seconds\"",
        at: "11:12",
        says: "`2 seconds` is not a duration",
        marks: "^^^^^^^^^^^",
        help: "write whole numbers with `h`, `m`, `s` or `ms`",
    },
    Wrong {
        line: 7,
        text: "web-1 = \"shop.example:8080\"",
        at: "7:9",
        says: "`shop.example` is not an address; names are not resolved",
        marks: "^^^^^^^^^^^^^^^^^^^",
        help: "write an address and a port",
    },
    Wrong {
        line: 3,
        text: "[service.api]\nvip = \"203.0.113.11:80\"\nbackends = {}\n[service.web]",
        at: "5:12",
        says: "the service has no backend",
        marks: "^^",
        help: "add one, for example `web-1 = \"10.0.0.11:8080\"`",
    },
    Wrong {
        line: 3,
        text: "[service.api]\nvip = \"203.0.113.10:80\"\nbackends.a = \"10.0.0.1:1\"\n[service.web]",
        at: "7:7",
        says: "the VIP 203.0.113.10:80 is used twice",
        marks: "^^^^^^^^^^^^^^^^^",
        help: "give each service a VIP address and port of its own",
    },
    Wrong {
        line: 8,
        text: "web-2 = \"10.0.0.11:8080\"",
        at: "8:9",
        says: "the address 10.0.0.11:8080 is used twice in this service",
        marks: "^^^^^^^^^^^^^^^^",
        help: "remove one of them",
    },
    Wrong {
        line: 8,
        text: "web-2 = \"[2001:db8::1]:80\"",
        at: "8:9",
        says: "the backend is IPv6, the VIP is IPv4",
        marks: "^^^^^^^^^^^^^^^^^^",
        help: "give the service backends of the VIP's IP version",
    },
    Wrong {
        line: 1,
        text: "",
        at: "1:1",
        says: "`interfaces` is missing",
        marks: "^",
        help: "add for example `interfaces = [\"eth0\"]`",
    },
    Wrong {
        line: 13,
        text: "consecutive_5xx = 3\nmin_serving = 3",
        at: "14:15",
        says: "3 must serve, but the service has 2 backends",
        marks: "^",
        help: "write at most 2, or add backends",
    },
    Wrong {
        line: 1,
        text: "interfaces = [\"lo\"]\nmetrics_listen = \"127.0.0.1:9\"",
        at: "2:1",
        says: "`metrics_listen` is not supported yet",
        marks: "^^^^^^^^^^^^^^",
        help: "remove it",
    },
];

fn with(line: usize, text: &str) -> String {
    let lines = FILE.lines().enumerate();
    lines.map(|(number, old)| if number + 1 == line { text } else { old }.to_owned() + "\n").collect()
}

/// A lab of one host that needs nothing but a loopback device.
fn lonely(prefix: &str) -> Result<(Host, Lab)> {
    let mut lab = Lab::new(prefix)?;
    let host = lab.host("node")?;
    Ok((host, lab))
}

#[test]
fn every_kind_of_mistake() -> Result<()> {
    if skipped("every_kind_of_mistake", &[]) {
        return Ok(());
    }
    let (host, lab) = lonely("wrong")?;
    let right = Attempt::new(&lab, &host, "right", FILE)?.check()?;
    right.succeeds();
    assert!(right.stdout.ends_with("right.toml: valid, 1 service, 2 backends\n"), "{right}");
    for (number, wrong) in WRONG.iter().enumerate() {
        let attempt = Attempt::verbatim(
            &lab,
            &host,
            &format!("wrong-{number}"),
            with(wrong.line, wrong.text).as_bytes(),
        )?;
        let place = format!("--> {}:{}\n", attempt.config.display(), wrong.at);
        for answer in [attempt.check()?, attempt.run()?] {
            let help = format!("help: {}", wrong.help);
            answer.refuses(3, &[&format!("error: {}", wrong.says), &place, &help, ": 1 error"]);
            // The marks stand alone on a line below the text.
            let marked =
                answer.stderr.lines().any(|line| line.trim_start_matches([' ', '|']).trim() == wrong.marks);
            assert!(marked, "`{}` is missing in\n{answer}", wrong.marks);
        }
        attempt.left_nothing();
    }
    Ok(())
}

#[test]
fn all_mistakes_at_once() -> Result<()> {
    if skipped("all_mistakes_at_once", &[]) {
        return Ok(());
    }
    let (host, lab) = lonely("several")?;
    let file =
        with(2, "nat_ports = 7\nloog = \"info\"").replace("consecutive_5xx = 3", "consecutive_5xx = -1");
    let attempt = Attempt::verbatim(&lab, &host, "several", file.as_bytes())?;
    for answer in [attempt.check()?, attempt.run()?] {
        let name = attempt.config.display();
        let places = ["2:13", "3:1", "14:19"].map(|place| format!("--> {name}:{place}\n"));
        answer.refuses(3, &places.each_ref().map(|place| place.as_str()));
        answer.refuses(3, &["help: did you mean `log`?", &format!("{name}: 3 errors")]);
    }
    attempt.left_nothing();
    Ok(())
}

#[test]
fn what_is_no_configuration_at_all() -> Result<()> {
    if skipped("what_is_no_configuration_at_all", &[]) {
        return Ok(());
    }
    let (host, lab) = lonely("odd")?;
    let large = "# much\n".repeat(200_000);
    let cases: [(&str, &[u8], &[&str]); 4] = [
        ("empty", b"", &["`interfaces` is missing", "no service is configured", "help: add"]),
        (
            "binary",
            b"interfaces = [\"lo\"]\n\xff\xfe",
            &["the file is not UTF-8", "2:1", "help: save it as UTF-8"],
        ),
        ("large", large.as_bytes(), &["the file is larger than 1024 KiB", "help: is this the right file?"]),
        ("nul", b"\0\0\0\0", &["1:5", "help: write `key = value`"]),
    ];
    for (name, file, words) in cases {
        let attempt = Attempt::verbatim(&lab, &host, name, file)?;
        attempt.check()?.refuses(3, words);
        attempt.run()?.refuses(3, words);
        attempt.left_nothing();
    }
    Ok(())
}

#[test]
fn what_cannot_be_read() -> Result<()> {
    if skipped("what_cannot_be_read", &[Need::Tool("setpriv")]) {
        return Ok(());
    }
    let (host, lab) = lonely("unread")?;
    let folder = lab.folder();
    let missing = folder.join("missing.toml");
    let help = "help: name another file with `-c`; `shunt config example` prints one";
    for verb in ["check", "run"] {
        for (path, reason) in [(missing.as_path(), "No such file or directory"), (folder, "Is a directory")] {
            let answer = Answer::of(&host, host.command(shunt()).arg(verb).arg("-c").arg(path))?;
            answer.refuses(3, &[&format!("error: cannot read {}: {reason}", path.display()), help]);
        }
    }
    let detach = Answer::of(&host, host.command(shunt()).args(["detach", "-c"]).arg(&missing))?;
    detach.refuses(3, &["error: cannot read ", help]);

    let secret = Attempt::new(&lab, &host, "secret", FILE)?;
    fs::set_permissions(&secret.config, fs::Permissions::from_mode(0o600))?;
    for verb in ["check", "run"] {
        let answer = Answer::of(&host, unprivileged(&host, &lab)?.arg(verb).arg("-c").arg(&secret.config))?;
        answer.refuses(3, &["error: cannot read ", "Permission denied", help]);
    }
    secret.left_nothing();
    Ok(())
}

/// `shunt` as somebody without any privilege, who may not be able to see the place where it was built.
pub(crate) fn unprivileged(host: &Host, lab: &Lab) -> Result<Command> {
    let copy = lab.folder().join("shunt");
    if !copy.exists() && fs::hard_link(shunt(), &copy).is_err() {
        fs::copy(shunt(), &copy)?;
    }
    let mut command = host.command("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--"]).arg(copy);
    Ok(command)
}
