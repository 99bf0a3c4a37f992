//! HAProxy, nginx and Traefik.

use std::{
    ffi::OsStr,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result};

use super::{OUT_SECONDS, Place, Running, THRESHOLD, found};

/// The protocol of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layer {
    Tcp,
    Http,
}

/// Where Debian puts the module.
pub(super) const NGINX_STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

pub(super) fn haproxy(place: &Place<'_>, layer: Layer) -> Result<Running> {
    let (mode, options, watched) = match layer {
        Layer::Tcp => ("tcp", String::new(), String::new()),
        Layer::Http => (
            "http",
            "  option httpchk GET /healthz\n".to_owned(),
            // A check a second; what was marked down comes back after as many as make up its time.
            format!(
                " check inter 1s rise {OUT_SECONDS} fall 3 observe layer7 error-limit {THRESHOLD} \
                 on-error mark-down on-marked-down shutdown-sessions"
            ),
        ),
    };
    let servers = place.each(|_, name, address| format!("  server {name} {address}{watched}\n"));
    let config = format!(
        "global\n  maxconn 4000\ndefaults\n  mode {mode}\n  timeout connect 5s\n  timeout client 60s\n  \
         timeout server 60s\nlisten web\n  bind {}\n{options}{servers}",
        place.vip
    );
    let path = written(place, "haproxy.cfg", &config)?;
    program(place, "haproxy", [OsStr::new("-db"), OsStr::new("-f"), path.as_os_str()])
}

pub(super) fn nginx(place: &Place<'_>) -> Result<Running> {
    let folder = place.topology.lab.folder();
    let at = folder.display();
    let servers = place.each(|_, _, address| format!("  server {address};\n"));
    let config = format!(
        "load_module {NGINX_STREAM};\ndaemon off; worker_processes auto; pid {at}/balancer.pid;\n\
         error_log {at}/balancer.log;\nevents {{ worker_connections 8192; }}\n\
         stream {{\n upstream web {{\n{servers} }}\n server {{ listen {} backlog=4096; proxy_pass web; }}\n}}\n",
        place.vip
    );
    let path = written(place, "nginx.conf", &config)?;
    program(
        place,
        "nginx",
        [OsStr::new("-e"), folder.join("balancer.log").as_os_str(), OsStr::new("-c"), path.as_os_str()],
    )
}

pub(super) fn traefik(place: &Place<'_>) -> Result<Running> {
    let servers = place.each(|_, _, address| {
        format!("[[http.services.web.loadBalancer.servers]]\nurl = \"http://{address}\"\n")
    });
    let config = format!(
        "[http.routers.web]\nrule = \"PathPrefix(`/`)\"\nservice = \"web\"\nentryPoints = [\"web\"]\n{servers}"
    );
    let path = written(place, "traefik.toml", &config)?;
    let words = [
        format!("--entrypoints.web.address={}", place.vip),
        format!("--providers.file.filename={}", path.display()),
        "--providers.file.watch=false".to_owned(),
        "--global.checknewversion=false".to_owned(),
        "--global.sendanonymoususage=false".to_owned(),
        // As many as the most connections of the load.
        "--serverstransport.maxidleconnsperhost=1000".to_owned(),
        "--log.level=ERROR".to_owned(),
    ];
    let traefik = found("traefik").context("traefik is gone")?;
    program(place, traefik, words)
}

/// Writes a file into the folder of the lab.
pub(super) fn written(place: &Place<'_>, name: &str, text: &str) -> Result<PathBuf> {
    let path = place.topology.lab.folder().join(name);
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}

/// Starts a program on the node. The VIP is the node's own then, and what it says goes to `peer.log`.
pub(super) fn program<W: AsRef<OsStr>>(
    place: &Place<'_>,
    program: impl AsRef<Path>,
    words: impl IntoIterator<Item = W>,
) -> Result<Running> {
    let node = place.node();
    node.ip(&format!("address add {}/32 dev lo", place.vip.ip()))?;
    let path = place.topology.lab.folder().join(LOG);
    let log = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
    let mut command = node.command(program.as_ref());
    command.args(words).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Ok(Running::Program(node.spawn(&mut command)?))
}

/// In the folder of the lab.
pub(super) const LOG: &str = "peer.log";
