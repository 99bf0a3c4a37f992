//! Envoy, whose configuration is a tree of typed messages.

use std::{ffi::OsStr, thread};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{
    OUT_SECONDS, Place, Running, THRESHOLD, found,
    proxies::{Layer, program, written},
};

/// More than any load here has; the default of 1024 is for a fleet.
const MANY: u32 = 100_000;

pub(super) fn start(place: &Place<'_>, layer: Layer) -> Result<Running> {
    let time = format!("{OUT_SECONDS}s");
    let outlier = json!({
        "consecutive_5xx": THRESHOLD,
        "enforcing_consecutive_5xx": 100,
        "enforcing_success_rate": 0,
        "interval": "0.5s",
        "base_ejection_time": time,
        "max_ejection_time": time,
        "max_ejection_percent": 50,
    });
    start_with(place, (layer == Layer::Http).then_some(outlier))
}

/// With outlier detection it speaks HTTP.
pub(super) fn start_with(place: &Place<'_>, outlier: Option<Value>) -> Result<Running> {
    let path = written(place, "envoy.json", &config(place, outlier).to_string())?;
    let cpus = thread::available_parallelism().context("counting CPUs")?.to_string();
    let envoy = found("envoy").context("envoy is gone")?;
    let words = ["--disable-hot-restart", "--log-level", "error", "--concurrency", &cpus, "-c"];
    program(place, envoy, words.iter().map(OsStr::new).chain([path.as_os_str()]))
}

fn config(place: &Place<'_>, outlier: Option<Value>) -> Value {
    let address = |ip: String, port: u16| json!({ "socket_address": { "address": ip, "port_value": port } });
    let endpoints: Vec<_> = place
        .backends
        .iter()
        .map(|(_, backend)| json!({ "endpoint": { "address": address(backend.ip().to_string(), backend.port()) } }))
        .collect();
    let mut cluster = json!({
        "name": "web",
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": { "cluster_name": "web", "endpoints": [{ "lb_endpoints": endpoints }] },
        "common_lb_config": {
            // By default an unhealthy half lets everybody serve.
            "healthy_panic_threshold": { "value": 0 },
            // By default a change that follows another within a second waits for the end of that second: an ejection
            // would be held up by the return of a backend that was ejected before.
            "update_merge_window": "0s",
        },
        "circuit_breakers": { "thresholds": [{
            "max_connections": MANY, "max_pending_requests": MANY, "max_requests": MANY,
        }] },
    });
    let filter = match outlier {
        None => json!({
            "name": "envoy.filters.network.tcp_proxy",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                "stat_prefix": "web",
                "cluster": "web",
            },
        }),
        Some(outlier) => {
            cluster["outlier_detection"] = outlier;
            http()
        }
    };
    json!({ "static_resources": {
        "listeners": [{
            "name": "web",
            "address": address(place.vip.ip().to_string(), place.vip.port()),
            "filter_chains": [{ "filters": [filter] }],
        }],
        "clusters": [cluster],
    } })
}

fn http() -> Value {
    const TYPES: &str = "type.googleapis.com/envoy.extensions.filters";
    json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": format!("{TYPES}.network.http_connection_manager.v3.HttpConnectionManager"),
            "stat_prefix": "web",
            "route_config": { "virtual_hosts": [{
                "name": "web",
                "domains": ["*"],
                "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "web" } }],
            }] },
            "http_filters": [{
                "name": "envoy.filters.http.router",
                "typed_config": { "@type": format!("{TYPES}.http.router.v3.Router") },
            }],
        },
    })
}
