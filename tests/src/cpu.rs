//! Threads on one CPU each.

use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

/// Keeps this thread on one of the CPUs that it may use. Where there are fewer, the numbers begin again.
pub fn stay_on(number: usize) {
    let this = Pid::from_raw(0);
    let all = sched_getaffinity(this).expect("the kernel says where a thread may run");
    let allowed: Vec<usize> =
        (0..CpuSet::count()).filter(|cpu| all.is_set(*cpu).expect("within the set")).collect();
    let mut one = CpuSet::new();
    one.set(allowed[number % allowed.len()]).expect("within the set");
    sched_setaffinity(this, &one).expect("a thread may stay where it may run");
}
