use proptest::prelude::*;

use super::*;

const ID: ServiceId = ServiceId(3);

fn address(id: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, id as u8], 80))
}

fn target(id: u16, admit: Admit) -> (BackendId, Target) {
    let budget = (admit == Admit::Trials).then_some(Grant { number: 1, tokens: 3 });
    (
        BackendId(id),
        Target {
            address: address(id),
            generation: Generation(1),
            admit,
            flow_reset: FlowReset::Never,
            count_successes: false,
            redispatch: false,
            max_connections: 0,
            budget,
        },
    )
}

/// A service with backends of these kinds. Backends that take all connections are in the table.
fn forwarding(admits: &[Admit]) -> Forwarding {
    let backends: BTreeMap<_, _> =
        admits.iter().enumerate().map(|(id, admit)| target(id as u16, *admit)).collect();
    let of = |kind| backends.iter().filter(move |(_, target)| target.admit == kind);
    let member =
        |(id, target): (&BackendId, &Target)| Member { id: *id, weight: 100, address: target.address };
    let entry = Entry {
        vip: "203.0.113.1:80".parse().expect("literal"),
        mode: Mode::Nat,
        no_backend: NoBackend::Reset,
        evidence: true,
        redispatch: false,
        affinity: None,
        limit: None,
        sources: Sources::default(),
        trials: of(Admit::Trials).map(|(id, _)| *id).collect(),
    };
    let table = Some(of(Admit::All).map(member).collect());
    Forwarding { service: Some(entry), table, backends: backends.clone() }
}

fn openness(admit: Admit) -> u8 {
    match admit {
        Admit::None => 0,
        Admit::Trials => 1,
        Admit::All => 2,
    }
}

/// A step's number in the order of the module's list, from what the maps hold.
fn rank(step: &Step, held: &Forwarding) -> u8 {
    match step {
        Step::RemoveService { .. } => 1,
        Step::Backend { id, admit, .. } => {
            // Not by the code under test: how many new connections a backend may have, as a number.
            let before = held.backends.get(id).map_or(0, |held| openness(held.admit));
            if openness(*admit) < before { 2 } else { 3 }
        }
        Step::Budget { .. } => 4,
        Step::Table { .. } => 5,
        Step::Service { .. } => 6,
        Step::RemoveBackend { .. } => 7,
    }
}

fn applied(mut held: Forwarding, steps: &[Step], target: &Forwarding) -> Forwarding {
    for step in steps {
        held.apply(step, target);
    }
    held
}

#[test]
fn nothing_to_do_is_no_step() {
    let held = forwarding(&[Admit::All, Admit::Trials, Admit::None]);
    assert_eq!(held.steps_to(&held, ID), []);
}

#[test]
fn an_ejection_is_one_write_ahead_of_everything() {
    let held = forwarding(&[Admit::All, Admit::All, Admit::None]);
    let wanted = forwarding(&[Admit::All, Admit::None, Admit::All]);
    let steps = held.steps_to(&wanted, ID);
    assert!(matches!(steps[0], Step::Backend { id: BackendId(1), admit: Admit::None, .. }), "{steps:?}");
    assert!(matches!(steps[1..], [Step::Backend { id: BackendId(2), .. }, Step::Table { .. }]));
}

#[test]
fn a_budget_is_no_part_of_a_place() {
    let held = forwarding(&[Admit::Trials]);
    let (entry, member, in_trial_slot) = held.place(BackendId(0));
    assert_eq!(entry, Some(Target { budget: None, ..held.backends[&BackendId(0)] }));
    assert_eq!((member, in_trial_slot), (None, true));
}

#[test]
fn a_fresh_budget_is_one_write() {
    let held = forwarding(&[Admit::Trials]);
    let mut wanted = held.clone();
    let grant = Some(Grant { number: 2, tokens: 3 });
    wanted.backends.get_mut(&BackendId(0)).expect("there").budget = grant;
    let steps = held.steps_to(&wanted, ID);
    assert_eq!(steps, [Step::Budget { id: BackendId(0), tokens: 3 }]);
    assert_eq!(applied(held, &steps, &wanted).steps_to(&wanted, ID), []);
}

#[test]
fn another_vip_takes_the_table_along() {
    let held = forwarding(&[Admit::All]);
    let mut wanted = held.clone();
    wanted.service.as_mut().expect("there").vip = "203.0.113.2:80".parse().expect("literal");
    let steps = held.steps_to(&wanted, ID);
    assert!(matches!(steps[..], [Step::RemoveService { .. }, Step::Table { .. }, Step::Service { .. }]));
}

fn admits() -> impl Strategy<Value = Vec<Admit>> {
    prop::collection::vec(prop_oneof![Just(Admit::All), Just(Admit::Trials), Just(Admit::None)], 0..6)
}

fn any_forwarding() -> impl Strategy<Value = Forwarding> {
    prop_oneof![1 => Just(Forwarding::default()), 6 => admits().prop_map(|admits| forwarding(&admits))]
}

proptest! {
    #[test]
    fn a_plan_leads_there_in_order(from in any_forwarding(), to in any_forwarding(), cut in 0usize..8) {
        let steps = from.steps_to(&to, ID);
        let ranks: Vec<u8> = steps.iter().map(|step| rank(step, &from)).collect();
        prop_assert!(ranks.is_sorted(), "{steps:?}");
        prop_assert_eq!(applied(from.clone(), &steps, &to).steps_to(&to, ID), []);
        // After a failure at any step the next plan still leads there.
        let halfway = applied(from, &steps[..cut.min(steps.len())], &to);
        let rest = halfway.steps_to(&to, ID);
        prop_assert_eq!(applied(halfway, &rest, &to).steps_to(&to, ID), []);
    }
}
