//! libFuzzer on the target that `FUZZ_TARGET` names: `cargo xtask fuzz`.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

static TARGET: OnceLock<lb_fuzz::Target> = OnceLock::new();

fuzz_target!(|data: &[u8]| {
    let target = TARGET.get_or_init(|| {
        let name = std::env::var("FUZZ_TARGET").expect("set by `cargo xtask fuzz`");
        lb_fuzz::find(&name).unwrap_or_else(|| panic!("no target {name}"))
    });
    (target.run)(data);
});
