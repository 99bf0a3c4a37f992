use std::path::Path;

use lb_core::snapshot::Standing;

use super::*;
use crate::{
    config,
    discovery::{self, Document},
};

const FILE: &str = "/run/shunt/discovery/web.json";

fn file(text: &str) -> File {
    let text = format!("interfaces = [\"eth0\"]\n[service.web]\nvip = \"203.0.113.10:80\"\n{text}");
    config::parse("shunt.toml", &text).unwrap_or_else(|wrong| panic!("{}", wrong.render(false)))
}

fn discovered() -> File {
    file(&format!("discovery.file = \"{FILE}\"\nfallback.sorry = \"10.0.0.9:80\"\n"))
}

fn document(backends: &str) -> Result<Document, Fault> {
    discovery::parse(format!("{{\"schema\":1,\"source\":\"test\",\"backends\":[{backends}]}}").as_bytes())
}

fn reading(found: Result<Document, Fault>) -> Reading {
    Reading { service: "web".to_owned(), path: FILE.into(), found: Arc::new(found) }
}

fn missing() -> Result<Document, Fault> {
    Err(Fault::new(DiscoveryCode::Missing, "it does not exist"))
}

const A: &str = r#"{"name":"a","address":"10.0.0.1:80","id":"1"}"#;
const B: &str = r#"{"name":"b","address":"10.0.0.2:80","id":"2","state":"draining"}"#;

/// Sets with these in force.
struct Stand {
    sets: DiscoveredSets,
    core: Config,
}

impl Stand {
    fn new() -> Self {
        let mut file = discovered();
        let (sets, _, _) = DiscoveredSets::start(&mut file, Vec::new());
        Self { sets, core: file.core }
    }

    /// The code of the news, and whether there is another configuration.
    fn give(&mut self, reading: &Reading, at: u64) -> (Option<DiscoveryCode>, bool) {
        let Decision { config, news } = self.sets.decide(reading, &self.core, |_| Ok(()), at);
        let changed = config.is_some();
        self.core = config.unwrap_or(self.core.clone());
        (news.map(|news| news.to), changed)
    }

    fn names(&self) -> Vec<&str> {
        self.core.services[0].backends.iter().map(|of| of.name.as_str()).collect()
    }

    fn shown(&self, at: u64) -> model::Discovery {
        self.sets.shown(at).remove(0)
    }
}

#[test]
fn the_last_good_set_stays_while_the_source_fails() {
    let mut stand = Stand::new();
    assert_eq!(stand.give(&reading(missing()), 1000), (Some(DiscoveryCode::Missing), false));
    assert_eq!((stand.shown(1000).good_unix_ms, stand.names().len()), (None, 0));
    let both = reading(document(&format!("{A},{B}")));
    assert_eq!(stand.give(&both, 2000), (Some(DiscoveryCode::Current), true));
    assert_eq!(stand.names(), ["a", "b"]);
    assert_eq!(stand.core.services[0].backends[1].standing(), Standing::Draining);
    assert_eq!(stand.give(&both, 3000), (None, false));
    let seen = stand.shown(3500);
    assert_eq!((seen.age_ms, seen.backends, seen.source.as_deref()), (Some(500), 2, Some("test")));

    for (wrong, code) in [
        (missing(), DiscoveryCode::Missing),
        (discovery::parse(b"{"), DiscoveryCode::Broken),
        (discovery::parse(br#"{"schema":2}"#), DiscoveryCode::OtherSchema),
    ] {
        let wrong = reading(wrong);
        assert_eq!(stand.give(&wrong, 4000), (Some(code), false));
        assert_eq!(stand.give(&wrong, 9000), (None, false), "once for each change");
        let seen = stand.shown(9000);
        assert_eq!((seen.code, seen.age_ms, seen.backends), (code, Some(6000), 2));
        assert!(seen.error.is_some_and(|error| error.starts_with(FILE)));
    }
    let remembered = stand.sets.remembered();
    assert_eq!((remembered[0].good_unix_ms, remembered[0].backends.len()), (3000, 2));
    assert_eq!(stand.give(&both, 10_000), (Some(DiscoveryCode::Current), false));
    // An empty set is a good one.
    assert_eq!(stand.give(&reading(document("")), 11_000), (None, true));
    assert_eq!(stand.names(), [""; 0]);
}

#[test]
fn a_set_that_does_not_fit_is_refused_whole() {
    let mut stand = Stand::new();
    stand.give(&reading(document(A)), 1000);
    for (other, says) in [
        (r#"{"name":"v6","address":"[fd00::1]:80"}"#, "IP version"),
        (r#"{"name":"vip","address":"203.0.113.10:80"}"#, "the VIP of `web`"),
        (r#"{"name":"sorry","address":"10.0.0.3:80"}"#, "fallback"),
        (r#"{"name":"c","address":"10.0.0.9:80"}"#, "fallback"),
    ] {
        let unfit = reading(document(&format!("{B},{other}")));
        let news = stand.sets.decide(&unfit, &stand.core, |_| Ok(()), 2000).news.expect(other);
        assert_eq!(news.to, DiscoveryCode::Unfit);
        assert!(news.detail.contains(says) && news.detail.ends_with("stays: 1 backend"), "{}", news.detail);
        assert_eq!(stand.give(&unfit, 3000), (None, false));
        assert_eq!(stand.names(), ["a"]);
        stand.give(&reading(document(A)), 4000);
    }
    let most = lb_common::MAX_BACKENDS as usize;
    let many: Vec<String> = (0..most)
        .map(|n| format!(r#"{{"name":"x{n}","address":"10.1.{}.{}:80"}}"#, n / 250, n % 250 + 1))
        .collect();
    // The fallback is one too many.
    let many = reading(document(&many.join(",")));
    assert_eq!(stand.give(&many, 5000), (Some(DiscoveryCode::Unfit), false));
}

#[test]
fn a_set_waits_for_space_in_the_maps() {
    let mut stand = Stand::new();
    let one = reading(document(A));
    let full = |_: &Config| Err(Exhausted::Backends { wanted: 1, capacity: 0 });
    let news = stand.sets.decide(&one, &stand.core, full, 1000).news.expect("no space");
    assert_eq!(news.to, DiscoveryCode::NoSpace);
    // The same reading comes again, and now there is space.
    assert_eq!(stand.give(&one, 2000), (Some(DiscoveryCode::Current), true));
}

#[test]
fn a_restart_begins_with_the_remembered_incarnations() {
    let folder = tempfile::tempdir().expect("temp dir");
    let path = folder.path().join("web.json");
    let text = |id: &str| A.replace("\"1\"", id);
    let started = |now: Option<&str>, before: &str| -> (Vec<(String, Option<String>)>, Option<u64>) {
        match now {
            Some(backends) => {
                let text = format!("{{\"schema\":1,\"backends\":[{backends}]}}");
                std::fs::write(&path, text).expect("written");
            }
            None => drop(std::fs::remove_file(&path)),
        }
        let mut file = file(&format!("discovery.file = {path:?}\n"));
        let before = document(before).expect("right").backends;
        let remembered = vec![state::Discovered::of("web", 77, &before)];
        let (sets, readings, watched) = DiscoveredSets::start(&mut file, remembered);
        assert_eq!((readings.len(), watched.borrow().len()), (1, 1));
        let backend = |of: &Backend| (of.name.clone(), of.identity().map(str::to_owned));
        let good = sets.shown(100)[0].good_unix_ms;
        (file.core.services[0].backends.iter().map(backend).collect(), good)
    };
    let a = |id: &str| ("a".to_owned(), Some(id.to_owned()));
    let b = ("b".to_owned(), Some("2".to_owned()));
    let second = text("\"9\"");
    // A missing file keeps the set.
    assert_eq!(started(None, &format!("{A},{B}")), (vec![a("1"), b.clone()], Some(77)));
    // Another incarnation on the same address: the maps hold the first one.
    assert_eq!(started(Some(&format!("{second},{B}")), A), (vec![a("1"), b.clone()], Some(77)));
    assert_eq!(started(Some(&format!("{A},{B}")), ""), (vec![a("1"), b], Some(77)));
    // Two would have one name.
    let swapped = r#"{"name":"x","address":"10.0.0.1:80","id":"7"},{"name":"a","address":"10.0.0.5:80"}"#;
    assert_eq!(started(Some(swapped), A).0, [a("1")]);
}

#[test]
fn a_reload_keeps_the_sets_and_refuses_a_clash() {
    let mut stand = Stand::new();
    stand.give(&reading(document(A)), 1000);
    let mut same = discovered();
    assert_eq!(stand.sets.fill(&mut same, &stand.core).expect("it fits").len(), 0);
    assert_eq!(same.core, stand.core);
    let mut clash = discovered();
    clash.core.services[0].vip = "[fd00::10]:80".parse().expect("literal");
    let says = stand.sets.fill(&mut clash, &stand.core).expect_err("another family").to_string();
    assert!(says.starts_with("the discovered set of `web` does not go with this file: `a`"), "{says}");

    // From the file to discovery: the backends stay until the first good set.
    let before = file("backends.old = \"10.0.0.7:80\"\n");
    let mut sets = DiscoveredSets::start(&mut file("backends.a = \"10.0.0.1:80\"\n"), Vec::new()).0;
    let mut after = file("discovery.file = \"/nowhere/web.json\"\n");
    let readings = sets.fill(&mut after, &before.core).expect("it fits");
    assert_eq!(readings[0].path, Path::new("/nowhere/web.json"));
    assert_eq!(after.core, before.core);
    sets.configured(&after.discovery, &after.core);
    let news = sets.decide(&readings[0], &after.core, |_| Ok(()), 1).news.expect("it fails");
    assert_eq!(news.to, DiscoveryCode::Missing);
    sets.configured(&BTreeMap::new(), &before.core);
    assert!(sets.shown(0).is_empty());
}
