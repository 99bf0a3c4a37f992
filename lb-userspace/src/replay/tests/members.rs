//! Members as lines change them.

use std::num::NonZeroU16;

use lb_core::config::Config;

use super::{CONFIG, configuration};
use crate::{
    journal::line::Member,
    replay::membership::{add, set},
};

fn member(name: &str, address: &str) -> Member {
    let (name, address) = (name.to_owned(), address.parse().expect("literal"));
    Member { name, address, weight: NonZeroU16::MIN, fallback: false, discovery: None, id: None }
}

fn address(config: &Config, name: &str) -> Option<String> {
    let backend = config.services[0].backends.iter().find(|one| one.name == name)?;
    Some(backend.address.to_string())
}

#[test]
fn one_that_comes_back_has_what_the_file_says() {
    let original = configuration(CONFIG);
    let mut config = original.clone();
    config.services[0].backends.retain(|one| one.name != "web-1");
    assert!(add(&mut config, &original, 0, "web-1", None, None));
    assert_eq!(address(&config, "web-1").as_deref(), Some("10.0.0.11:80"));
    // Somebody else has that address meanwhile.
    assert!(set(&mut config, 0, &[member("x", "10.0.0.11:80")]));
    assert!(add(&mut config, &original, 0, "web-1", None, None));
    assert_eq!(address(&config, "web-1").as_deref(), Some("198.18.0.1:80"));
    assert!(config.services[0].fallback.is_empty());
}

#[test]
fn only_a_difference_is_a_change() {
    let original = configuration(CONFIG);
    let mut config = original.clone();
    let mut again = |address: Option<&str>, weight| {
        let address = address.map(|text| text.parse().expect("literal"));
        add(&mut config, &original, 0, "web-1", address, NonZeroU16::new(weight))
    };
    assert!(!again(None, 0));
    assert!(again(None, 7) && !again(None, 7));
    assert!(again(Some("10.0.0.77:80"), 7) && !again(Some("10.0.0.77:80"), 7));
    let members = [member("x", "10.0.0.9:80"), Member { fallback: true, ..member("y", "10.0.0.8:80") }];
    let mut config = original.clone();
    assert!(set(&mut config, 0, &members) && !set(&mut config, 0, &members));
    let services = &config.services[0];
    assert_eq!((services.backends.len(), services.fallback.len()), (1, 1));
}
