//! The service and the backend that a line is about.

use std::collections::HashMap;

use lb_core::config::Config;

use super::{account::Account, membership, unfit::Unfit};
use crate::journal::line::{Line, What};

/// The place of the line's service in `config`. `None`: the line is about no service, or about one that is
/// left out, because only the service `only` is wanted.
pub(super) fn service(
    line: &Line<'_>,
    config: &Config,
    places: &HashMap<String, usize>,
    only: Option<&str>,
) -> Result<Option<usize>, Unfit> {
    let needed = match line.what {
        What::Ask | What::Gap { .. } | What::Clock { .. } | What::Pass => false,
        What::Outcome { .. }
        | What::Confirmation { .. }
        | What::TrialsTaken { .. }
        | What::Probe { .. }
        | What::Path { .. }
        | What::Operator { .. }
        | What::Add { .. }
        | What::Remove { .. }
        | What::Members(_)
        | What::SuccessCounts { .. }
        | What::EvidenceLost { .. } => true,
    };
    match &line.service {
        Some(name) => match places.get(name.as_ref()) {
            Some(place) => Ok(Some(*place)),
            None if only.is_some() => Ok(None),
            None => Err(Unfit::unknown_service(name, config)),
        },
        None if !needed => Ok(None),
        None if config.services.len() == 1 => Ok(Some(0)),
        None => Err(Unfit::no_service(config)),
    }
}

/// Refuses a line whose backend is not there, if it has to be, or whose new backend has the address of
/// another.
pub(super) fn check_backend(
    config: &Config,
    account: &Account,
    service: usize,
    what: &What<'_>,
) -> Result<(), Unfit> {
    let backend = match what {
        What::Outcome { backend, .. }
        | What::Confirmation { backend, .. }
        | What::TrialsTaken { backend }
        | What::Probe { backend, .. }
        | What::Path { backend, .. }
        | What::Operator { backend, .. }
        | What::Remove { backend }
        | What::SuccessCounts { backend, .. }
        | What::EvidenceLost { backend, .. } => backend,
        What::Add { backend, address, .. } => {
            return membership::check(config, service, backend, *address);
        }
        What::Members(_) | What::Gap { .. } | What::Ask | What::Clock { .. } | What::Pass => return Ok(()),
    };
    match account.knows(service, backend) {
        true => Ok(()),
        false => Err(Unfit::unknown_backend(backend, &config.services[service])),
    }
}
