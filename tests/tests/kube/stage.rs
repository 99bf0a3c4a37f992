//! Objects of a cluster, and `shunt-kube` beside the API server on the loopback.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use anyhow::{Context as _, Result};
use lb_lab::until_ok;
use lb_tests::{
    api_server::{ApiServer, Kind},
    lab::built,
};
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The file of the service `web` in the namespace `shop`.
pub(crate) const WEB: &str = "shop.web.http.json";

pub(crate) fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| built("shunt-kube", "shunt-kube"))
}

/// An endpoint of a slice.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) ready: bool,
    pub(crate) terminating: bool,
}

impl Pod {
    pub(crate) fn ready(name: &str, address: &str) -> Self {
        Self { name: name.to_owned(), address: address.to_owned(), ready: true, terminating: false }
    }

    /// Deleted: it serves until its end.
    pub(crate) fn leaves(self) -> Self {
        Self { ready: false, terminating: true, ..self }
    }
}

/// `shop/web` with the port `http`.
pub(crate) fn service(discover: Option<&str>) -> Value {
    let annotations =
        discover.map(|ports| json!({ "shunt.dev/discover": ports })).unwrap_or_else(|| json!({}));
    json!({
        "metadata": {
            "name": "web", "namespace": "shop", "labels": { "app": "web" }, "annotations": annotations,
        },
        "spec": {
            "clusterIP": "10.96.0.10", "ipFamilies": ["IPv4"], "selector": { "app": "web" },
            "ports": [{ "name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP" }],
        },
    })
}

/// A slice of `shop/web`. The uid of a pod is its name with `uid-` in front.
pub(crate) fn slice(name: &str, pods: &[Pod]) -> Value {
    let endpoint = |pod: &Pod| {
        let Pod { name, address, ready, terminating } = pod;
        json!({
            "addresses": [address],
            "conditions": { "ready": ready, "serving": ready | terminating, "terminating": terminating },
            "targetRef": { "kind": "Pod", "namespace": "shop", "name": name, "uid": format!("uid-{name}") },
        })
    };
    json!({
        "metadata": {
            "name": name, "namespace": "shop", "labels": { "kubernetes.io/service-name": "web" },
        },
        "addressType": "IPv4",
        "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
        "endpoints": pods.iter().map(endpoint).collect::<Vec<_>>(),
    })
}

/// `shunt-kube` that runs. Fields end in this order.
pub(crate) struct Follower {
    child: Child,
    pub(crate) server: ApiServer,
    folder: TempDir,
}

impl Follower {
    /// With the service and one slice of these pods.
    pub(crate) fn start(pods: &[Pod], versions: &[&'static str], user: &str) -> Result<Self> {
        let server = ApiServer::local(versions)?;
        server.put(Kind::Service, service(Some("true")));
        server.put(Kind::EndpointSlice, slice("web-1", pods));
        Self::follow(server, user)
    }

    pub(crate) fn follow(server: ApiServer, user: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("kubeconfig"), server.kubeconfig(user))?;
        let log = File::create(folder.path().join("log"))?;
        let mut command = Command::new(program());
        command.arg("--kubeconfig").arg(folder.path().join("kubeconfig"));
        command.arg("--directory").arg(folder.path().join("files"));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().context("shunt-kube can be started")?;
        Ok(Self { child, server, folder })
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join("files").join(name)
    }

    /// The text of the file of `web`.
    pub(crate) fn text(&self) -> Result<String> {
        Ok(fs::read_to_string(self.file(WEB))?)
    }

    /// Waits until the file of `web` has these names and states.
    pub(crate) fn has(&self, expected: &[(&str, &str)]) -> Result<()> {
        until_ok("the file", PATIENCE, || match states(&self.file(WEB)) {
            Ok(seen)
                if seen
                    .iter()
                    .map(|(name, state)| (name.as_str(), state.as_str()))
                    .eq(expected.iter().copied()) =>
            {
                Ok(())
            }
            seen => Err(format!("{seen:?}\n{}", self.log())),
        })?;
        Ok(())
    }

    /// Waits until the log has a line with this.
    pub(crate) fn logs(&self, words: &str) -> Result<()> {
        until_ok("the log", PATIENCE, || match self.log() {
            log if log.contains(words) => Ok(()),
            log => Err(format!("no `{words}` in {log}")),
        })?;
        Ok(())
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // It holds nothing that would need an orderly end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Names and states of a file, in its order.
pub(crate) fn states(path: &Path) -> Result<Vec<(String, String)>> {
    let document: Value = serde_json::from_slice(&fs::read(path)?)?;
    let backends = document["backends"].as_array().context("a list")?;
    let text = |of: &Value, key: &str| of[key].as_str().unwrap_or_default().to_owned();
    Ok(backends.iter().map(|of| (text(of, "name"), text(of, "state"))).collect())
}
