//! A configuration file: any bytes get an answer with places inside the text, and what is accepted can run.

use lb_userspace::config::{Diagnostics, parse_bytes};

use crate::drive::Drive;

pub(crate) fn run(data: &[u8]) {
    match parse_bytes("fuzz.toml", data) {
        Ok(file) => {
            assert_eq!(parse_bytes("fuzz.toml", data).as_ref(), Ok(&file), "the same text, the same file");
            Drive::new(file.core, None).run();
        }
        Err(diagnostics) => check(&diagnostics, data),
    }
}

fn check(diagnostics: &Diagnostics, data: &[u8]) {
    assert!(diagnostics.count() > 0 && diagnostics.count() >= diagnostics.iter().count());
    // As the errors count it: without a byte order mark, and readable.
    let text = String::from_utf8_lossy(data);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let lines: Vec<&str> = text.split('\n').collect();
    for diagnostic in diagnostics.iter() {
        let (line, column, span) = (diagnostic.line, diagnostic.column, diagnostic.span.clone());
        assert!(span.start <= span.end && text.get(span).is_some(), "{diagnostic:?}");
        let its = line.checked_sub(1).and_then(|line| lines.get(line)).expect("a line of the text");
        assert!((1..=its.chars().count() + 1).contains(&column), "{diagnostic:?}");
        assert!(!diagnostic.message.is_empty() && !diagnostic.help.is_empty(), "{diagnostic:?}");
    }
    for colour in [false, true] {
        assert!(diagnostics.render(colour).contains("fuzz.toml"));
    }
}
