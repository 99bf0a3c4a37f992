use std::collections::BTreeMap;

use proptest::{prelude::*, sample::Index};

use super::*;
use crate::ids::BackendId;

/// Members with neighbouring addresses, as real pools have them.
fn members(weights: &[u16]) -> Vec<Member> {
    let member = |(i, weight): (usize, &u16)| Member {
        id: BackendId(i as u16),
        weight: *weight,
        address: format!("10.0.{}.{}:8080", i / 200, i % 200 + 1).parse().expect("literal"),
    };
    weights.iter().enumerate().map(member).collect()
}

fn equal(count: usize) -> Vec<Member> {
    members(&vec![100; count])
}

fn shares(table: &Table) -> BTreeMap<u16, u32> {
    let mut shares = BTreeMap::new();
    for slot in table.0 {
        *shares.entry(slot).or_default() += 1;
    }
    shares
}

fn changed(a: &Table, b: &Table) -> usize {
    a.0.iter().zip(&b.0).filter(|(a, b)| a != b).count()
}

/// `count` is within 1 % of `exact`, which is given as a fraction.
fn within_a_percent(count: u32, numerator: u64, denominator: u64) -> bool {
    let difference = (u64::from(count) * denominator).abs_diff(numerator);
    difference * 100 <= numerator
}

#[test]
fn without_members_every_slot_is_no_backend() {
    assert_eq!(shares(&build(&[])), BTreeMap::from([(NO_BACKEND, SLOTS)]));
    assert_eq!(shares(&build(&members(&[0, 0]))), BTreeMap::from([(NO_BACKEND, SLOTS)]));
}

#[test]
fn a_single_member_has_every_slot() {
    assert_eq!(shares(&build(&equal(1))), BTreeMap::from([(0, SLOTS)]));
    assert_eq!(shares(&build(&members(&[1]))), BTreeMap::from([(0, SLOTS)]));
    assert_eq!(shares(&build(&members(&[0, 7]))), BTreeMap::from([(1, SLOTS)]));
}

#[test]
fn equal_members_share_evenly() {
    for count in [2, 3, 10, 100, 500] {
        for (id, slots) in shares(&build(&equal(count))) {
            assert!(within_a_percent(slots, u64::from(SLOTS), count as u64), "{id} of {count}: {slots}");
        }
    }
}

#[test]
fn shares_follow_weights() {
    for weights in [vec![100, 50], vec![1, 2, 3, 4], vec![100, 100, 10, 1000], vec![65_535, 65_534, 32_000]] {
        let sum: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        for (id, slots) in shares(&build(&members(&weights))) {
            let weight = u64::from(weights[usize::from(id)]);
            assert!(within_a_percent(slots, u64::from(SLOTS) * weight, sum), "{weights:?}: {id} has {slots}");
        }
    }
}

/// All nodes and all versions have to build the same tables.
#[test]
fn the_table_is_always_the_same_to_the_slot() {
    let sum = |weights: &[u16]| {
        let slots = build(&members(weights)).0;
        slots.iter().fold(0u64, |sum, slot| sum.wrapping_mul(0x100_0000_01b3) ^ u64::from(*slot))
    };
    assert_eq!(
        [sum(&[100, 100, 100]), sum(&[3, 2, 7, 1])],
        [4_015_510_649_534_961_738, 8_240_447_885_041_832_711]
    );
}

#[test]
fn the_lightest_beside_the_heaviest_ends() {
    let shares = shares(&build(&members(&[65_535, 1])));
    assert_eq!(shares[&0] + shares.get(&1).copied().unwrap_or(0), SLOTS);
    assert!(shares[&0] >= SLOTS - 2);
}

/// 1 % has to move: the slots of the member that left. The algorithm moves some more, which depends on the
/// member. So the promise is the mean over all hundred, and a bound for the worst.
#[test]
fn removing_one_of_a_hundred_moves_little() {
    let all = equal(100);
    let before = build(&all);
    let moved: Vec<usize> = (0..all.len())
        .map(|gone| {
            let mut rest = all.clone();
            rest.remove(gone);
            changed(&before, &build(&rest))
        })
        .collect();
    let mean = moved.iter().sum::<usize>() / moved.len();
    assert!(mean * 1000 <= TABLE_SLOTS * 16, "mean {mean} of {TABLE_SLOTS}");
    let worst = moved.iter().max().expect("a hundred figures");
    assert!(worst * 1000 <= TABLE_SLOTS * 18, "worst {worst} of {TABLE_SLOTS}");
    assert!(moved.iter().all(|moved| *moved >= TABLE_SLOTS / 100));
}

#[test]
fn ids_do_not_move_anything() {
    let named = equal(10);
    let renamed: Vec<Member> =
        named.iter().map(|member| Member { id: BackendId(900 - member.id.0 * 7), ..*member }).collect();
    let (a, b) = (build(&named), build(&renamed));
    assert!(a.0.iter().zip(&b.0).all(|(a, b)| *b == 900 - a * 7));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_order_does_not_matter(
        (sorted, shuffled) in prop::collection::vec(1u16..400, 1..40)
            .prop_map(|weights| members(&weights))
            .prop_flat_map(|members| (Just(members.clone()), Just(members).prop_shuffle())),
    ) {
        prop_assert!(build(&sorted).0 == build(&shuffled).0);
    }

    #[test]
    fn adding_it_again_restores_the_table(weights in prop::collection::vec(1u16..400, 2..40), gone: Index) {
        let all = members(&weights);
        let before = build(&all);
        let mut list = all.clone();
        let member = list.remove(gone.index(all.len()));
        prop_assert!(before.0 != build(&list).0);
        list.push(member);
        prop_assert!(before.0 == build(&list).0);
    }

    #[test]
    fn slots_name_members_in_proportion(weights in prop::collection::vec(20u16..200, 1..30)) {
        let sum: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        for (id, slots) in shares(&build(&members(&weights))) {
            let weight = u64::from(weights[usize::from(id)]);
            prop_assert!(within_a_percent(slots, u64::from(SLOTS) * weight, sum));
        }
    }
}
