//! The dataplane in the kernel: loads the XDP or tc program and writes its maps.
//!
//! [`open`] is the daemon's way in, [`Unattached`] that of packet tests. Each file names the files that it builds on;
//! none of them names this one.

mod access;
mod adopt;
mod attach;
mod backends;
mod census;
mod clients_seen;
mod connection_limits;
mod crowd;
mod dataplane;
mod error;
mod flow_check;
mod flow_family;
mod flow_spec;
mod flows;
mod handles;
mod holder;
mod idle;
mod instances;
mod layout;
mod limit_check;
mod link;
mod mapped;
mod maps;
mod nat_addresses;
mod open;
mod own_macs;
mod pins;
mod ports;
mod private;
mod program;
mod registry;
mod requirements;
mod reset_frame;
mod reset_sender;
mod reset_targets;
mod reverse_nat;
mod ring;
mod sizing;
mod sources;
mod spoof_guard;
mod steering_maps;
mod success_counts;
mod syn_acks;
mod timeouts;
mod trial_budgets;
mod unattached;
mod values;
mod wire;

pub use self::{
    attach::{Attached, Attacher},
    clients_seen::ClientsSeen,
    connection_limits::ConnectionLimits,
    dataplane::Bpf,
    error::OpenError,
    flow_spec::other_max_flows,
    flows::{FlowCounts, FlowTables},
    handles::MinPathMtu,
    holder::{Holder, also_attached, at_tc_ingress, pin_of},
    idle::IdleTimeouts,
    instances::{forwarding, instances, taken_vip},
    maps::ProgramSize,
    open::{Logger, Opened, Options, open},
    pins::{DetachError, Detached, Lock, Owner, detach, is_bpffs, owner},
    private::is_private,
    program::Hook,
    reset_sender::ResetSender,
    ring::EvidenceRing,
    sizing::{flow_table_bytes, start_bytes},
    success_counts::SuccessCounts,
    syn_acks::SynAcks,
    timeouts::{Limits, Now, Scan, TimedOut, TimeoutScanner},
    trial_budgets::TrialBudgets,
    unattached::{Settings, Unattached},
};
