//! The objects of the cluster, as lists and watches report them.

use std::{collections::BTreeMap, fmt::Debug};

use kube::{core::DynamicObject, runtime::watcher::Event};

use crate::{
    objects::{self, Key, Service, Slice, Unreadable},
    sets::{self, Sets},
};

/// Everything that is known.
#[derive(Debug, Default)]
pub(crate) struct Cluster {
    pub(crate) services: Kept<Service>,
    pub(crate) slices: Kept<Slice>,
}

impl Cluster {
    /// The sets, once both lists were complete. Before that nothing may be written: a service would lose the endpoints that
    /// have not come yet.
    pub(crate) fn sets(&self, selected: bool) -> Option<Sets> {
        let complete = self.services.complete && self.slices.complete;
        complete.then(|| sets::build(&self.services.present, &self.slices.present, selected))
    }

    /// Whether both lists were complete since [`Self::begin`].
    pub(crate) fn is_fresh(&self) -> bool {
        self.services.fresh && self.slices.fresh
    }

    /// Both lists begin again.
    pub(crate) fn begin(&mut self) {
        (self.services.fresh, self.slices.fresh) = (false, false);
        (self.services.arriving, self.slices.arriving) = (None, None);
    }
}

/// The objects of one kind.
#[derive(Debug)]
pub(crate) struct Kept<T> {
    present: BTreeMap<Key, T>,
    /// Those of a list whose end has not come. Until then the present ones stay.
    arriving: Option<BTreeMap<Key, T>>,
    complete: bool,
    fresh: bool,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self { present: BTreeMap::new(), arriving: None, complete: false, fresh: false }
    }
}

impl<T: Clone + Debug + PartialEq> Kept<T> {
    /// `true`: something that the sets depend on has changed.
    pub(crate) fn take(
        &mut self,
        event: Event<DynamicObject>,
        read: impl Fn(&DynamicObject) -> Result<T, Unreadable>,
    ) -> bool {
        match event {
            Event::Init => {
                self.arriving = Some(BTreeMap::new());
                false
            }
            Event::InitApply(object) => {
                if let Some((key, value)) = self.value(&object, read) {
                    self.arriving.get_or_insert_default().insert(key, value);
                }
                false
            }
            Event::InitDone => {
                let arrived = self.arriving.take().unwrap_or_default();
                let changed = !self.complete || self.present != arrived;
                self.present = arrived;
                (self.complete, self.fresh) = (true, true);
                changed
            }
            Event::Apply(object) => match self.value(&object, read) {
                Some((key, value)) if self.present.get(&key) != Some(&value) => {
                    self.present.insert(key, value);
                    true
                }
                Some(_) | None => false,
            },
            Event::Delete(object) => match objects::key(&object) {
                Ok(key) => self.present.remove(&key).is_some(),
                Err(_) => false,
            },
        }
    }

    /// An object of another form keeps the value that it had.
    fn value(
        &self,
        object: &DynamicObject,
        read: impl Fn(&DynamicObject) -> Result<T, Unreadable>,
    ) -> Option<(Key, T)> {
        let key = objects::key(object).ok()?;
        match read(object) {
            Ok(value) => Some((key, value)),
            Err(error) => {
                let Key { namespace, name } = &key;
                tracing::warn!(namespace, name, %error, "an object is not understood, and counts as it was before");
                let before = self.present.get(&key)?.clone();
                Some((key, before))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(name: &str, port: u16) -> DynamicObject {
        let value = json!({
            "metadata": { "name": name, "namespace": "shop" }, "spec": { "ports": [{ "port": port }] },
        });
        serde_json::from_value(value).expect("an object")
    }

    fn names(kept: &Kept<Service>) -> Vec<&str> {
        kept.present.keys().map(|key| key.name.as_str()).collect()
    }

    #[test]
    fn a_list_counts_when_it_is_complete() {
        let mut kept = Kept::default();
        let mut take = |event| (kept.take(event, Service::read), names(&kept).join(","), kept.complete);
        let no = |names: &str| (false, names.to_owned(), false);
        assert_eq!(take(Event::Init), no(""));
        assert_eq!(take(Event::InitApply(service("a", 80))), no(""));
        assert_eq!(take(Event::InitDone), (true, "a".to_owned(), true));
        assert_eq!(take(Event::Apply(service("b", 80))), (true, "a,b".to_owned(), true));
        assert_eq!(take(Event::Apply(service("b", 80))), (false, "a,b".to_owned(), true));
        // A stream that was cut: the list comes again, and until it is whole the present one holds.
        assert_eq!(take(Event::Init), (false, "a,b".to_owned(), true));
        assert_eq!(take(Event::InitApply(service("b", 80))), (false, "a,b".to_owned(), true));
        assert_eq!(take(Event::InitDone), (true, "b".to_owned(), true));
        assert_eq!(take(Event::Delete(service("b", 80))), (true, String::new(), true));
        assert_eq!(take(Event::Delete(service("b", 80))), (false, String::new(), true));
    }

    #[test]
    fn an_object_of_another_form_keeps_its_value() {
        let mut kept = Kept::default();
        kept.take(Event::Init, Service::read);
        kept.take(Event::InitApply(service("a", 80)), Service::read);
        kept.take(Event::InitDone, Service::read);
        let mut wrong = service("a", 80);
        wrong.data = json!({ "spec": 4 });
        assert!(!kept.take(Event::Apply(wrong.clone()), Service::read));
        wrong.metadata.name = Some("b".to_owned());
        assert!(!kept.take(Event::Apply(wrong), Service::read));
        assert_eq!(names(&kept), ["a"]);
    }

    #[test]
    fn nothing_is_known_before_both_lists_are() {
        let mut cluster = Cluster::default();
        cluster.services.take(Event::InitDone, Service::read);
        assert_eq!(cluster.sets(true), None);
        cluster.slices.take(Event::InitDone, Slice::read);
        assert_eq!(cluster.sets(true), Some(Sets::default()));
        assert!(cluster.is_fresh());
        cluster.begin();
        assert!(
            !cluster.is_fresh() && cluster.sets(true).is_some(),
            "the sets stay while the lists come again"
        );
    }
}
