//! The API server: how to reach it, and which version of EndpointSlices it has.

use std::path::PathBuf;

use kube::{
    Api, Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
    core::{ApiResource, DynamicObject, GroupVersionKind},
};

use crate::{
    args::Args,
    exit::{Exit, Failure},
};

const GROUP: &str = "discovery.k8s.io";

/// The lists that are followed.
pub(crate) struct Lists {
    pub(crate) services: Api<DynamicObject>,
    pub(crate) slices: Api<DynamicObject>,
    /// Of the EndpointSlices.
    pub(crate) version: &'static str,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("the kubeconfig cannot be used")]
    Config(#[source] anyhow::Error),
    #[error("the API server does not answer as expected")]
    Server(#[from] kube::Error),
    #[error("the API server has no EndpointSlices ({GROUP}/v1 or v1beta1)")]
    NoSlices,
}

/// Reads the kubeconfig and the token again, and asks the server for its versions.
pub(crate) async fn connect(args: &Args) -> Result<Lists, ConnectError> {
    let client = Client::try_from(config(args).await.map_err(ConnectError::Config)?)?;
    let groups = client.list_api_groups().await?;
    let versions = groups.groups.iter().filter(|group| group.name == GROUP).flat_map(|group| &group.versions);
    let versions: Vec<&str> = versions.map(|of| of.version.as_str()).collect();
    let version = ["v1", "v1beta1"].into_iter().find(|version| versions.contains(version));
    let version = version.ok_or(ConnectError::NoSlices)?;
    let services = resource("", "v1", "Service", "services");
    let slices = resource(GROUP, version, "EndpointSlice", "endpointslices");
    let api = |of: &ApiResource| match &args.namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, of),
        None => Api::all_with(client.clone(), of),
    };
    Ok(Lists { services: api(&services), slices: api(&slices), version })
}

async fn config(args: &Args) -> anyhow::Result<Config> {
    let options = KubeConfigOptions { context: args.context.clone(), ..KubeConfigOptions::default() };
    let from = |path: PathBuf| async move {
        let kubeconfig = Kubeconfig::read_from(path)?;
        anyhow::Ok(Config::from_custom_kubeconfig(kubeconfig, &options).await?)
    };
    match (&args.kubeconfig, &args.context) {
        (Some(path), _) => from(path.clone()).await,
        (None, Some(context)) => {
            let options =
                KubeConfigOptions { context: Some(context.clone()), ..KubeConfigOptions::default() };
            Ok(Config::from_kubeconfig(&options).await?)
        }
        (None, None) => Ok(Config::infer().await?),
    }
}

fn resource(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}

/// The status of an answer, if the server gave one.
pub(crate) fn status(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        match &error {
            ConnectError::Config(_) => Self::new(Exit::Config, error)
                .remedy("give --kubeconfig FILE, or run it in a pod with a service account"),
            ConnectError::Server(cause) => {
                let exit = exit(cause);
                Self::new(exit, error).remedy(remedy(exit))
            }
            ConnectError::NoSlices => Self::new(Exit::Failed, error).remedy("Kubernetes has them since 1.17"),
        }
    }
}

/// The exit code for an error of the API server.
pub(crate) fn exit(error: &kube::Error) -> Exit {
    match status(error) {
        Some(401 | 403) => Exit::NotAllowed,
        Some(429 | 500..=599) | None => Exit::Unreachable,
        Some(_) => Exit::Failed,
    }
}

pub(crate) fn remedy(exit: Exit) -> &'static str {
    match exit {
        Exit::NotAllowed => {
            "the account needs get, list and watch of services and endpointslices: dist/kubernetes/rbac.yaml"
        }
        Exit::Unreachable => {
            "`kubectl get --raw /readyz` with the same kubeconfig says whether it is the server"
        }
        Exit::Failed | Exit::Config => "see the log with --log debug",
    }
}
