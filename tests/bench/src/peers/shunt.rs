//! Shunt itself, in the ways it is measured.

use anyhow::Result;
use lb_lab::Shunt;

use super::{OUT_SECONDS, Place, Running, THRESHOLD};

#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    pub(super) dnat: bool,
    /// With it goes the breaker.
    pub(super) evidence: bool,
    /// Living connections of an ejected backend are reset instead of drained.
    pub(super) reset: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { dnat: false, evidence: true, reset: false }
    }
}

pub(super) fn start(place: &Place<'_>, options: Options) -> Result<Running> {
    let Place { topology, shunt, .. } = place;
    Ok(Running::Shunt(Shunt::start(&topology.lab, &topology.node, shunt, &config(place, options))?))
}

fn config(place: &Place<'_>, Options { dnat, evidence, reset }: Options) -> String {
    let backends = place.each(|_, name, address| format!("{name} = \"{address}\"\n"));
    let mode = if dnat { "dnat" } else { "nat" };
    let policy = if reset { "on_eject = \"reset\"\n" } else { "on_eject = \"drain\"\n" };
    // An ejection lasts as long each time.
    let breaker = format!(
        "[service.web.breaker]\nconsecutive_5xx = {THRESHOLD}\ninterval = \"500ms\"\n\
         base_ejection_time = \"{OUT_SECONDS}s\"\nmax_ejection_time = \"{OUT_SECONDS}s\"\n"
    );
    format!(
        "interfaces = {:?}\n[service.web]\nvip = \"{}\"\nmode = \"{mode}\"\nevidence = {evidence}\n{policy}\
         [service.web.backends]\n{backends}{}",
        place.topology.devices,
        place.vip,
        if evidence { &breaker } else { "" },
    )
}
