//! The objects, with the history of their changes.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// The kinds that have objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Service,
    EndpointSlice,
}

impl Kind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
        }
    }
}

/// Namespace and name.
type Key = (String, String);

#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) version: u64,
    pub(super) kind: Kind,
    /// `None`: it was added.
    pub(super) before: Option<Value>,
    /// `None`: it was deleted.
    pub(super) after: Option<Value>,
}

#[derive(Debug, Default)]
pub(super) struct Store {
    /// The last version that was given.
    pub(super) version: u64,
    /// Watches from an older one are gone.
    pub(super) oldest: u64,
    objects: BTreeMap<(Kind, Key), Value>,
    changes: Vec<Change>,
}

impl Store {
    pub(super) fn put(&mut self, kind: Kind, mut object: Value) -> u64 {
        self.version += 1;
        let key = key(&object);
        let before = self.objects.get(&(kind, key.clone())).cloned();
        let uid = before
            .as_ref()
            .map_or_else(|| json!(format!("uid-{}", self.version)), |of| of["metadata"]["uid"].clone());
        let metadata = object["metadata"].as_object_mut().expect("an object has metadata");
        metadata.insert("resourceVersion".to_owned(), json!(self.version.to_string()));
        metadata.insert("uid".to_owned(), uid);
        metadata.entry("creationTimestamp").or_insert(json!("2026-12-01T10:00:00Z"));
        self.objects.insert((kind, key), object.clone());
        self.changes.push(Change { version: self.version, kind, before, after: Some(object) });
        self.version
    }

    pub(super) fn delete(&mut self, kind: Kind, namespace: &str, name: &str) -> u64 {
        let key = (namespace.to_owned(), name.to_owned());
        if let Some(before) = self.objects.remove(&(kind, key)) {
            self.version += 1;
            self.changes.push(Change { version: self.version, kind, before: Some(before), after: None });
        }
        self.version
    }

    pub(super) fn forget(&mut self) -> u64 {
        self.version += 1;
        self.oldest = self.version;
        self.changes.clear();
        self.version
    }

    pub(super) fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<&Value> {
        self.objects.get(&(kind, (namespace.to_owned(), name.to_owned())))
    }

    /// All that fit, in the order of their names.
    pub(super) fn all(&self, kind: Kind, selection: &Selection) -> Vec<&Value> {
        let of_kind = self.objects.iter().filter(|((of, _), _)| *of == kind);
        of_kind.map(|(_, object)| object).filter(|object| selection.fits(object)).collect()
    }

    /// The changes after a version.
    pub(super) fn since(&self, kind: Kind, version: u64) -> Vec<Change> {
        let later = self.changes.iter().filter(|of| of.kind == kind && of.version > version);
        later.cloned().collect()
    }
}

fn key(object: &Value) -> Key {
    let part = |name: &str| object["metadata"][name].as_str().expect("an object is named").to_owned();
    (part("namespace"), part("name"))
}

/// The objects that a list or a watch is about.
#[derive(Clone, Debug, Default)]
pub(super) struct Selection {
    pub(super) namespace: Option<String>,
    /// `a=b`, `a==b`, `a!=b`, `a` and `!a`, separated by commas.
    pub(super) labels: String,
    /// `metadata.name=…`.
    pub(super) name: Option<String>,
}

impl Selection {
    pub(super) fn fits(&self, object: &Value) -> bool {
        let metadata = &object["metadata"];
        let in_namespace =
            self.namespace.as_deref().is_none_or(|namespace| metadata["namespace"] == namespace);
        let named = self.name.as_deref().is_none_or(|name| metadata["name"] == name);
        let none = Map::new();
        let labels = metadata["labels"].as_object().unwrap_or(&none);
        let label = |name: &str| labels.get(name).and_then(Value::as_str);
        let holds = |term: &str| match term.split_once("!=") {
            Some((name, value)) => label(name) != Some(value),
            None => match term.split_once('=') {
                Some((name, value)) => label(name) == Some(value.trim_start_matches('=')),
                None => match term.strip_prefix('!') {
                    Some(name) => label(name).is_none(),
                    None => label(term).is_some(),
                },
            },
        };
        let terms = self.labels.split(',').map(str::trim).filter(|term| !term.is_empty());
        in_namespace && named && terms.into_iter().all(holds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_select() {
        let object = json!({ "metadata": { "namespace": "shop", "name": "a", "labels": { "app": "web" } } });
        let fits =
            |labels: &str| Selection { labels: labels.to_owned(), ..Selection::default() }.fits(&object);
        assert!(
            ["", "app", "app=web", "app==web", "app!=api", "!tier", "app=web,!tier"].into_iter().all(fits)
        );
        assert!(!["tier", "app=api", "app!=web", "!app", "app=web,tier"].into_iter().any(fits));
        let elsewhere = Selection { namespace: Some("other".to_owned()), ..Selection::default() };
        assert!(!elsewhere.fits(&object));
    }

    #[test]
    fn changes_have_versions() {
        let mut store = Store::default();
        let object = |port: u16| json!({ "metadata": { "namespace": "shop", "name": "a" }, "port": port });
        assert_eq!((store.put(Kind::Service, object(1)), store.put(Kind::Service, object(2))), (1, 2));
        assert_eq!(store.since(Kind::Service, 1).len(), 1);
        assert_eq!(store.since(Kind::EndpointSlice, 0).len(), 0);
        let uid =
            |store: &Store| store.get(Kind::Service, "shop", "a").map(|of| of["metadata"]["uid"].clone());
        assert_eq!(uid(&store), Some(json!("uid-1")));
        assert_eq!(store.delete(Kind::Service, "shop", "a"), 3);
        assert_eq!(store.delete(Kind::Service, "shop", "a"), 3);
        store.forget();
        assert_eq!((store.oldest, store.since(Kind::Service, 0).len()), (4, 0));
    }
}
