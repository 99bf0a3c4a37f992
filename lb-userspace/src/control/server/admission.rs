//! The places for connections to the control socket, by user.
//!
//! Every user of the socket's group may read, and no reader may take the places or the descriptors of the others: neither
//! of the probes nor of the operator who wants to know why.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use nix::unistd::geteuid;
use tracing::warn;

use super::{peer::Peer, refusal::Refusal};
use crate::control::model::ProblemKind;

/// Connections at a time.
pub(super) const MOST: usize = 256;
/// Of these, only root and the daemon's user get the last ones.
pub(super) const RESERVED: usize = 64;
/// Of any other user.
pub(super) const OF_ONE_USER: usize = 32;

#[derive(Clone, Debug, Default)]
pub(super) struct Admission(Arc<Mutex<Places>>);

#[derive(Debug, Default)]
struct Places {
    all: usize,
    /// By user; without those of root and the daemon's user.
    of: BTreeMap<Option<u32>, usize>,
    refused: u64,
}

/// A connection that was admitted. The place is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    admission: Admission,
    user: Option<Option<u32>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// This user has had enough.
    User,
    All,
}

impl Admission {
    pub(super) fn admit(&self, peer: Peer) -> Result<Place, Full> {
        let user = (!peer.may_change(geteuid().as_raw())).then_some(peer.uid);
        let mut places = self.places();
        if let Some(full) = places.full(user) {
            places.refused += 1;
            // The first, and then ever fewer: a reader who tries for ever fills no log.
            if places.refused.is_power_of_two() {
                let (uid, refused) = (peer.uid, places.refused);
                warn!(?uid, refused, "a connection to the control socket was refused: {}", full.why());
            }
            return Err(full);
        }
        places.all += 1;
        if let Some(uid) = user {
            *places.of.entry(uid).or_default() += 1;
        }
        drop(places);
        Ok(Place { admission: self.clone(), user })
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    fn full(&self, user: Option<Option<u32>>) -> Option<Full> {
        let Some(uid) = user else { return (self.all >= MOST).then_some(Full::All) };
        if self.of.get(&uid).is_some_and(|places| *places >= OF_ONE_USER) {
            return Some(Full::User);
        }
        let others: usize = self.of.values().sum();
        (self.all >= MOST || others >= MOST - RESERVED).then_some(Full::All)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.admission.places();
        places.all -= 1;
        let Some(uid) = self.user else { return };
        if let Some(of) = places.of.get_mut(&uid) {
            *of -= 1;
            if *of == 0 {
                places.of.remove(&uid);
            }
        }
    }
}

impl Full {
    pub(super) fn refusal(self) -> Refusal {
        let remedy = match self {
            Self::User => "close connections that are not needed; `shunt events -f` needs one",
            Self::All => "ask again later, or as root",
        };
        Refusal::new(ProblemKind::Unavailable, self.why(), remedy)
    }

    fn why(self) -> String {
        match self {
            Self::User => format!("this user has {OF_ONE_USER} connections to the control socket already"),
            Self::All => "the control socket has as many connections as it may have".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stranger(number: u32) -> Peer {
        Peer { uid: Some(4_000_000_000 + number) }
    }

    #[test]
    fn no_user_takes_the_places_of_others_and_root_has_a_reserve() {
        let admission = Admission::default();
        let mut held: Vec<Place> =
            (0..OF_ONE_USER).map(|_| admission.admit(stranger(0)).expect("free")).collect();
        assert_eq!(admission.admit(stranger(0)).expect_err("enough"), Full::User);
        let mut user = 1;
        let full = loop {
            match admission.admit(stranger(user)) {
                Ok(place) => held.push(place),
                Err(Full::User) => user += 1,
                Err(full) => break full,
            }
        };
        assert_eq!((full, held.len()), (Full::All, MOST - RESERVED));
        let root = Peer { uid: Some(0) };
        held.extend((0..RESERVED).map(|_| admission.admit(root).expect("reserved")));
        assert_eq!(admission.admit(root).expect_err("no more for anybody"), Full::All);
        held.clear();
        admission.admit(stranger(0)).expect("free again");
        assert!(admission.places().of.is_empty() && admission.places().all == 0);
    }
}
