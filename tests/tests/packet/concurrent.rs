//! Two CPUs at once.

use std::{sync::Barrier, thread};

use aya::{TestRunOptions, programs::Program};
use lb_core::{
    config::NoBackend,
    io::{Admit, BackendId, Step},
};
use lb_tests::{
    both_families,
    cpu::stay_on,
    frame::{SYN, Tcp},
    kernel::{Action, Kernel, address, test_run, vip},
};

const EACH: u16 = 20_000;
const PORTS: std::ops::RangeInclusive<u16> = 20_000..=20_255;

/// Runs all frames on one CPU, and says how many were sent on.
fn run_on(cpu: usize, program: &Program, frames: &[Vec<u8>]) -> usize {
    // Where there is one CPU only, the two take turns.
    stay_on(cpu);
    let mut sent = 0;
    for frame in frames {
        let mut out = vec![0; frame.len() + 64];
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.data_out = Some(&mut out);
        let result = test_run(program, options).expect("the kernel runs it");
        sent += usize::from(Action::of(result.return_value) == Action::Redirect);
    }
    sent
}

both_families!(no_two_flows_share_a_nat_port);
fn no_two_flows_share_a_nat_port() {
    // Few ports and many SYNs, so that nearly each takes a port over from another; and a small table, so that
    // places are taken over too.
    let mut kernel = Kernel::with(1, PORTS, 1024);
    let frames = |half: u8| -> Vec<Vec<u8>> {
        let client = |n: u16| (address([10, 50 + half, (n >> 8) as u8, n as u8]), 40_000 + n % 10).into();
        (0..EACH).map(|n| Tcp::new(client(n), vip(), SYN).bytes()).collect()
    };
    let halves = [frames(0), frames(1)];
    let program: &Program = kernel.program();
    let sent: usize = thread::scope(|scope| {
        let [a, b] = [0, 1].map(|cpu| {
            let frames = &halves[cpu];
            scope.spawn(move || run_on(cpu, program, frames))
        });
        a.join().expect("no panic") + b.join().expect("no panic")
    });
    assert!(sent > usize::from(EACH), "most find a port: {sent}");
    let flows = kernel.flows();
    let found = flows.inconsistencies();
    assert!(found.is_empty(), "{found:?}");
    let census = flows.counts();
    assert!(
        census.handshakes > 100 && census.handshakes <= 256,
        "as many as there are ports, at most: {census:?}"
    );
}

both_families!(a_budget_is_exact_on_two_cpus);
fn a_budget_is_exact_on_two_cpus() {
    const ROUNDS: u16 = 40;
    const OFFERED: u16 = 400;
    let mut kernel = Kernel::with(2, 1024..=32_767, 65_536);
    kernel.admit(1, 1, Admit::Trials);
    kernel.table(&[0]);
    kernel.service(NoBackend::Reset, &[1]);
    let trials = |kernel: &mut Kernel| {
        let counters = kernel.counters();
        let of = counters.backends.iter().find(|(id, _)| *id == BackendId(1));
        of.map_or(0, |(_, counters)| counters.trials)
    };
    for round in 0..ROUNDS {
        // The last token is where two could take one, so there are many last ones.
        let tokens = u32::from(1 + round % 5);
        let before = trials(&mut kernel);
        kernel.apply(&Step::Budget { id: BackendId(1), tokens });
        let frames = |half: u8| -> Vec<Vec<u8>> {
            let client = |n: u16| (address([10, 60 + half, round as u8, n as u8]), 40_000 + n / 256).into();
            (0..OFFERED).map(|n| Tcp::new(client(n), vip(), SYN).bytes()).collect()
        };
        let halves = [frames(0), frames(1)];
        let program: &Program = kernel.program();
        let start = Barrier::new(2);
        thread::scope(|scope| {
            for (cpu, frames) in halves.iter().enumerate() {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    run_on(cpu, program, frames)
                });
            }
        });
        assert_eq!(trials(&mut kernel) - before, u64::from(tokens), "round {round}");
    }
}
