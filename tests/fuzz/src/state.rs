//! A remembered state: whatever of it can be read, the engine goes on from it and remembers the same kind of
//! thing.

use lb_core::{config::Config, state::State};
use lb_userspace::config;

use crate::drive::Drive;

const CONFIG: &str = r#"interfaces = ["eth0"]
[service.web]
vip = "203.0.113.10:80"
backends = { a = "10.0.0.1:80", b = "10.0.0.2:80", c = "10.0.0.3:80" }
[service.web.probe.tcp]
[service.web.breaker]
interval = "1s"
base_ejection_time = "1s"
max_ejection_time_jitter = "1s"
slow_start = "5s"
"#;

pub(crate) fn run(data: &[u8]) {
    let Ok(state) = serde_json::from_slice::<State>(data) else { return };
    let engine = Drive::new(configuration(), Some(state)).run();
    let kept = engine.export(engine.snapshot(lb_core::time::Instant(0)).t_ms);
    let text = serde_json::to_vec(&kept).expect("plain data");
    assert_eq!(serde_json::from_slice::<State>(&text).expect("just written"), kept);
}

fn configuration() -> Config {
    config::parse("state.toml", CONFIG).expect("it is right").core
}
