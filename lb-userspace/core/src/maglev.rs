//! Maglev lookup tables (Eisenbud et al., NSDI 2016, section 3.4).
//!
//! Every member has its own permutation of the slots, computed from its address
//! alone. Members take turns; at its turn a member takes the first slot of its
//! permutation that is still free. Hence the shares are even to within a slot,
//! and a member that leaves disturbs little beyond its own slots.
//!
//! Weights change how often a turn comes: each round adds the weight to the
//! member's credit, and the heaviest weight of credit buys a slot.
//!
//! Members take their turns in the order of their addresses, so that neither
//! the order of the file nor the ids matter, and every node builds the same table.

use lb_common::{NO_BACKEND, TABLE_SLOTS, abi::Table};

use crate::{io::Member, random};

const SLOTS: u32 = TABLE_SLOTS as u32;

/// The two streams that a permutation is made from.
const OFFSET: u64 = 0x6f66_6673_6574;
const SKIP: u64 = 0x736b_6970;

/// The table of `members`. Without a member of any weight all slots are `NO_BACKEND`.
pub fn build(members: &[Member]) -> Box<Table> {
    let mut slots = empty();
    fill(&mut slots, members);
    // SAFETY: `Table` is repr(C) and this array is its only field, so both have the same layout, and
    // the box comes from `into_raw` of a box of that layout.
    unsafe { Box::from_raw(Box::into_raw(slots).cast::<Table>()) }
}

/// On the heap from the start: 131 KB do not belong on a stack.
fn empty() -> Box<[u16; TABLE_SLOTS]> {
    let slots = vec![NO_BACKEND; TABLE_SLOTS].into_boxed_slice();
    slots.try_into().expect("the vector has TABLE_SLOTS entries")
}

fn fill(slots: &mut [u16; TABLE_SLOTS], members: &[Member]) {
    let mut turns: Vec<Turn> = members.iter().filter(|member| member.weight > 0).map(Turn::new).collect();
    turns.sort_by_key(|turn| turn.member.address);
    let Some(heaviest) = turns.iter().map(|turn| turn.weight()).max() else { return };

    let mut free = SLOTS;
    loop {
        for turn in &mut turns {
            turn.credit += turn.weight();
            if turn.credit < heaviest {
                continue;
            }
            turn.credit -= heaviest;
            turn.take(slots);
            free -= 1;
            if free == 0 {
                return;
            }
        }
    }
}

/// A member and its position in its permutation.
struct Turn<'a> {
    member: &'a Member,
    credit: u32,
    next: u32,
    skip: u32,
}

impl<'a> Turn<'a> {
    fn new(member: &'a Member) -> Self {
        let offset = random::of_address(OFFSET, member.address) % u64::from(SLOTS);
        // The number of slots is prime: every step from 1 to it visits them all.
        let skip = random::of_address(SKIP, member.address) % u64::from(SLOTS - 1) + 1;
        Self { member, credit: 0, next: offset as u32, skip: skip as u32 }
    }

    fn weight(&self) -> u32 {
        u32::from(self.member.weight)
    }

    /// Only called while a slot is free.
    fn take(&mut self, slots: &mut [u16; TABLE_SLOTS]) {
        loop {
            let slot = &mut slots[self.next as usize];
            self.next += self.skip;
            if self.next >= SLOTS {
                self.next -= SLOTS;
            }
            if *slot == NO_BACKEND {
                *slot = self.member.id.0;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;
