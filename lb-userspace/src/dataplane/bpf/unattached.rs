//! A loaded program without pins and without interfaces, for tests and benchmarks that run it frame by frame.

use std::{net::IpAddr, ops::RangeInclusive, sync::Arc};

use aya::Ebpf;

use super::{
    clients_seen::ClientsSeen,
    dataplane::Bpf,
    error::OpenError,
    flow_spec::FlowSpec,
    handles::{
        Handles, MinPathMtu, clients_seen, crowd, duplicate, flows, nat_addresses, own_addr_filter,
        success_counts, syn_acks, trial_budgets,
    },
    idle::{IdleTicks, IdleTimeouts},
    program::{Hook, load, verify},
    ring::EvidenceRing,
    success_counts::SuccessCounts,
    syn_acks::SynAcks,
    trial_budgets::TrialBudgets,
};

/// A verified program with its maps. The maps stay in `ebpf`: each dataplane has descriptors of its own to them.
pub struct Unattached {
    pub ebpf: Ebpf,
    flow_tables: FlowSpec,
    idle: IdleTicks,
}

/// Settings that the program reads from its maps.
pub struct Settings<'a> {
    pub nat_ports: RangeInclusive<u16>,
    pub nat_addresses: &'a [IpAddr],
    /// The program looks at tagged frames with these ids.
    pub vlans: &'a [u16],
    /// On each CPU. 0: no limit.
    pub max_new_flows_per_second: u32,
    /// In percent. 100: no limit.
    pub max_source_share: u8,
    pub min_path_mtu: MinPathMtu,
}

impl Unattached {
    /// Loads the program of a hook with flow tables for so many flows, and lets the kernel verify it.
    pub fn load(hook: Hook, max_flows: u32) -> Result<Self, OpenError> {
        let flow_tables = FlowSpec::new(max_flows).map_err(OpenError::Descriptor)?;
        let idle = IdleTicks::from(IdleTimeouts::default());
        let mut ebpf = load(hook, None, flow_tables, idle, false)?;
        verify(&mut ebpf)?;
        Ok(Self { ebpf, flow_tables, idle })
    }

    /// Writes the settings, and opens what the daemon reads and writes. Nothing is adopted from the maps, so they
    /// must be as the loader made them.
    pub fn dataplane(&self, settings: Settings<'_>) -> Result<(Bpf, EvidenceRing), OpenError> {
        let flows = Arc::new(flows(&self.ebpf, self.flow_tables.seed, self.idle)?);
        let filter = own_addr_filter(&self.ebpf)?;
        let duplicate = |name| duplicate(&self.ebpf, name);
        let crowd = crowd(&self.ebpf, settings.max_source_share)?;
        let budgets = Arc::new(trial_budgets(&self.ebpf)?);
        let nat = nat_addresses(&self.ebpf)?;
        let mut handles = Handles::take(duplicate, filter, flows, crowd, nat, budgets, settings.nat_ports)?;
        let (vlans, new_flows) = (settings.vlans, settings.max_new_flows_per_second);
        let min_path_mtu = settings.min_path_mtu;
        handles.configure(self.flow_tables.seed, settings.nat_addresses, vlans, new_flows, min_path_mtu)?;
        Ok((handles.dataplane, handles.evidence))
    }

    pub fn success_counts(&self) -> Result<SuccessCounts, OpenError> {
        success_counts(&self.ebpf)
    }

    pub fn syn_acks(&self) -> Result<SynAcks, OpenError> {
        syn_acks(&self.ebpf)
    }

    pub fn clients_seen(&self) -> Result<ClientsSeen, OpenError> {
        clients_seen(&self.ebpf)
    }

    pub fn trial_budgets(&self) -> Result<TrialBudgets, OpenError> {
        trial_budgets(&self.ebpf)
    }
}
