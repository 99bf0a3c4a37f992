//! From paths to inputs of the engine.

use lb_core::{
    config::{Config, Mode},
    io::Input,
};

use super::driver::Driver;
use crate::dataplane::next_hop::Paths;

/// Gives the engine the path of each backend that it knows another one of.
pub(super) fn follow(paths: &Paths, config: &Config, driver: &mut Driver) {
    for service in driver.snapshot().services {
        let Some(configured) = config.services.iter().find(|of| of.name == service.name) else { continue };
        for backend in service.backends {
            let path = paths.to(backend.address.ip(), configured.mode == Mode::Nat);
            if path != backend.path {
                let (backend, generation) = (backend.id, backend.generation);
                driver.handle(Input::Path { backend, generation, path });
            }
        }
    }
}
