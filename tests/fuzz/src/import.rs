//! The readers of other programs' configurations.

use lb_userspace::{
    config,
    import::{self, Format, Options, Source, Weight},
};

pub(crate) fn run(format: Format, bytes: &[u8]) {
    let address = |text: &str| text.parse().expect("an address");
    let options = Options {
        vips: vec![(None, "192.0.2.1".parse().expect("an address"))],
        backends: vec![("a".to_owned(), address("10.0.0.1:80")), ("b".to_owned(), address("10.0.0.2:80"))],
        ..Options::default()
    };
    let source = Source { name: "input".to_owned(), bytes: bytes.to_vec() };
    for options in [Options::default(), Options { faithful: true, ..options }] {
        let imported = import::import(format, std::slice::from_ref(&source), &options);
        match (&imported.toml, imported.weight()) {
            (Some(toml), weight) => {
                assert!(weight < Some(Weight::Error), "a result in spite of errors");
                config::parse("the result", toml).expect("the result is a configuration");
                assert!(!imported.rows.is_empty(), "a result without rows");
            }
            (None, weight) => assert_eq!(weight, Some(Weight::Error), "no result and no error"),
        }
        for note in &imported.notes {
            assert_eq!(note.to_string().lines().count(), 1, "a note is one line: {note}");
        }
    }
}
