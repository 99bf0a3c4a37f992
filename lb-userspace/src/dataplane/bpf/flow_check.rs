//! Whether the maps of a family agree with each other. Tests ask.

use lb_common::{
    abi::{Address, CLIENT_WAYS},
    hash::{keyed_hash, set, tag},
};

use super::flow_family::Family;

/// One line for each contradiction. There is none while no frame is under way.
pub(super) fn inconsistencies<A: Address>(family: &Family<A>) -> Vec<String> {
    let mut found = Vec::new();
    let mut live = 0;
    for slot in 0..family.flows.len() {
        let flow = family.flows.read(slot);
        let tagged = family.clients.read(slot / CLIENT_WAYS).tags[slot % CLIENT_WAYS];
        if !flow.is_live() {
            if tagged != 0 {
                found.push(format!("place {slot} has a tag and no flow"));
            }
            continue;
        }
        live += 1;
        if flow.slot as usize != slot || tagged != tag(keyed_hash(&flow.client, &family.keys)) {
            found.push(format!("the flow at {slot} is not where its client's hash leads"));
        }
        let first = set(keyed_hash(&flow.client, &family.keys), family.clients.len() as u32) as usize;
        if first != slot / CLIENT_WAYS && family.clients.read(first).spilled == 0 {
            found.push(format!("the flow at {slot} lies where no lookup finds it"));
        }
        let hash = keyed_hash(&flow.reply, &family.keys);
        let entry = (slot as u64) << 32 | u64::from(tag(hash));
        if !family.reply_sets(hash).into_iter().any(|set| family.replies.read(set).ways.contains(&entry)) {
            found.push(format!("no reply entry leads to the flow at {slot}"));
        }
    }
    for number in 0..family.replies.len() {
        let mut tags: Vec<_> = family.replies.read(number).ways.map(|entry| entry as u32).to_vec();
        tags.retain(|tag| *tag != 0);
        tags.sort_unstable();
        if tags.windows(2).any(|pair| pair[0] == pair[1]) {
            found.push(format!("two flows share a NAT port in set {number}"));
        }
    }
    let sets = (0..family.replies.len()).map(|number| family.replies.read(number));
    let entries = sets.flat_map(|set| set.ways).filter(|entry| *entry != 0).count();
    if entries != live {
        found.push(format!("{entries} reply entries, {live} flows"));
    }
    found
}
