//! Loaded programs, used one fixture after the other.
//!
//! Loading takes a second, for the kernel's verifier follows some 340 000 instructions. A fixture borrows a
//! program, whose maps are made what they were when it was loaded, and gives it back. Two fixtures never have
//! the same one at the same time. After a panic the program is thrown away.

use std::{
    collections::BTreeMap,
    ops::{Deref, DerefMut},
    sync::{Mutex, PoisonError},
    thread,
};

use lb_userspace::dataplane::bpf::{Hook, Unattached};

use crate::maps::{Content, RawMap};

/// By what the program gets when it is loaded. Everything else stands in its maps.
type Key = (&'static str, u32);

/// Programs that no fixture uses.
static IDLE: Mutex<BTreeMap<Key, Vec<Loaded>>> = Mutex::new(BTreeMap::new());

/// A program, and the content of its maps when it was loaded.
pub struct Loaded {
    pub program: Unattached,
    fresh: BTreeMap<String, Content>,
}

impl Loaded {
    pub fn load(hook: Hook, max_flows: u32) -> Self {
        let program = Unattached::load(hook, max_flows).expect("the program loads");
        let mut loaded = Self { program, fresh: BTreeMap::new() };
        loaded.fresh = loaded.contents();
        loaded
    }

    /// By the map's name.
    pub fn contents(&self) -> BTreeMap<String, Content> {
        self.maps().map(|(name, map)| (name.to_owned(), map.content())).collect()
    }

    /// Every map of the program.
    pub fn maps(&self) -> impl Iterator<Item = (&str, RawMap<'_>)> {
        self.program.ebpf.maps().map(|(name, map)| (name, RawMap::new(map)))
    }

    pub fn reset(&self) {
        for (name, map) in self.maps() {
            map.reset(&self.fresh[name]);
        }
    }
}

/// A program that one fixture uses.
pub struct Borrowed {
    key: Key,
    loaded: Option<Loaded>,
}

/// A program for flow tables of this size, as a fresh one.
pub fn borrow(hook: Hook, max_flows: u32) -> Borrowed {
    let name = match hook {
        Hook::Xdp => "xdp",
        Hook::Tc => "tc",
    };
    let key = (name, max_flows);
    let idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&key).and_then(Vec::pop);
    let loaded = match idle {
        Some(loaded) => {
            loaded.reset();
            loaded
        }
        None => Loaded::load(hook, max_flows),
    };
    Borrowed { key, loaded: Some(loaded) }
}

impl Deref for Borrowed {
    type Target = Loaded;

    fn deref(&self) -> &Loaded {
        self.loaded.as_ref().expect("it has one until it is dropped")
    }
}

impl DerefMut for Borrowed {
    fn deref_mut(&mut self) -> &mut Loaded {
        self.loaded.as_mut().expect("it has one until it is dropped")
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if let Some(loaded) = self.loaded.take().filter(|_| !thread::panicking()) {
            let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
            idle.entry(self.key).or_default().push(loaded);
        }
    }
}
