//! Services and EndpointSlices, as far as the sets depend on them.
//!
//! EndpointSlices of `v1` and `v1beta1` have the same fields here, so one reader serves both.

use std::{collections::BTreeMap, net::IpAddr};

use kube::core::DynamicObject;
use serde::Deserialize;

/// The label of an EndpointSlice that names its Service.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The annotation of a Service that says which of its ports are followed.
pub(crate) const DISCOVER: &str = "shunt.dev/discover";

/// Namespace and name of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    V4,
    V6,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    /// The value of [`DISCOVER`].
    pub(crate) discover: Option<String>,
    pub(crate) families: Vec<Family>,
    pub(crate) ports: Vec<Port>,
}

/// A TCP port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    /// Empty: the only port may have no name.
    pub(crate) name: String,
    pub(crate) number: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slice {
    pub(crate) service: Key,
    /// `None`: domain names, which Shunt does not resolve.
    pub(crate) family: Option<Family>,
    /// TCP ports with a number.
    pub(crate) ports: Vec<Port>,
    pub(crate) endpoints: Vec<Endpoint>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// All further ones are the same endpoint's, by the rules of Kubernetes.
    pub(crate) address: IpAddr,
    pub(crate) ready: bool,
    pub(crate) serving: bool,
    pub(crate) terminating: bool,
    /// Name and uid of the pod.
    pub(crate) target: Option<Target>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) name: Option<String>,
    pub(crate) uid: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error("it has no {0}")]
    Lacks(&'static str),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

pub(crate) fn key(object: &DynamicObject) -> Result<Key, Unreadable> {
    let namespace = object.metadata.namespace.clone().ok_or(Unreadable::Lacks("namespace"))?;
    let name = object.metadata.name.clone().ok_or(Unreadable::Lacks("name"))?;
    Ok(Key { namespace, name })
}

impl Service {
    pub(crate) fn read(object: &DynamicObject) -> Result<Self, Unreadable> {
        #[derive(Deserialize)]
        struct Raw {
            spec: Spec,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Spec {
            ports: Option<Vec<RawPort>>,
            ip_families: Option<Vec<String>>,
        }
        let Raw { spec } = Raw::deserialize(&object.data)?;
        let family = |name: &String| match name.as_str() {
            "IPv4" => Some(Family::V4),
            "IPv6" => Some(Family::V6),
            _ => None,
        };
        let annotations = object.metadata.annotations.as_ref();
        Ok(Self {
            discover: annotations.and_then(|all| all.get(DISCOVER)).cloned(),
            families: spec.ip_families.unwrap_or_default().iter().filter_map(family).collect(),
            ports: tcp(spec.ports),
        })
    }
}

impl Slice {
    pub(crate) fn read(object: &DynamicObject) -> Result<Self, Unreadable> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Raw {
            address_type: String,
            endpoints: Option<Vec<RawEndpoint>>,
            ports: Option<Vec<RawPort>>,
        }
        let labels: Option<&BTreeMap<String, String>> = object.metadata.labels.as_ref();
        let service = labels.and_then(|all| all.get(SERVICE_NAME)).ok_or(Unreadable::Lacks(SERVICE_NAME))?;
        let Key { namespace, .. } = key(object)?;
        let Raw { address_type, endpoints, ports } = Raw::deserialize(&object.data)?;
        let family = match address_type.as_str() {
            "IPv4" => Some(Family::V4),
            "IPv6" => Some(Family::V6),
            _ => None,
        };
        let endpoints = endpoints.unwrap_or_default().into_iter();
        Ok(Self {
            service: Key { namespace, name: service.clone() },
            family,
            ports: tcp(ports),
            endpoints: endpoints.filter_map(RawEndpoint::into_endpoint).collect(),
        })
    }
}

#[derive(Deserialize)]
struct RawPort {
    name: Option<String>,
    port: Option<u16>,
    protocol: Option<String>,
}

fn tcp(ports: Option<Vec<RawPort>>) -> Vec<Port> {
    let is_tcp = |port: &RawPort| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP");
    let ports = ports.unwrap_or_default().into_iter().filter(is_tcp);
    // Without a number it stands for all ports.
    ports
        .filter_map(|of| {
            Some(Port { name: of.name.unwrap_or_default(), number: of.port.filter(|port| *port > 0)? })
        })
        .collect()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawEndpoint {
    addresses: Option<Vec<String>>,
    #[serde(default)]
    conditions: Option<Conditions>,
    target_ref: Option<RawTarget>,
}

#[derive(Default, Deserialize)]
struct Conditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Deserialize)]
struct RawTarget {
    name: Option<String>,
    uid: Option<String>,
}

impl RawEndpoint {
    /// `None`: it has no address that a frame could be sent to.
    fn into_endpoint(self) -> Option<Endpoint> {
        let address: IpAddr = self.addresses?.first()?.parse().ok()?;
        let Conditions { ready, serving, terminating } = self.conditions.unwrap_or_default();
        // An unknown state counts as ready, and an unknown `serving` is that of `ready`.
        let ready = ready.unwrap_or(true);
        Some(Endpoint {
            address,
            ready,
            serving: serving.unwrap_or(ready),
            terminating: terminating.unwrap_or(false),
            target: self.target_ref.map(|of| Target { name: of.name, uid: of.uid }),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: serde_json::Value) -> DynamicObject {
        serde_json::from_value(value).expect("an object")
    }

    #[test]
    fn a_slice_is_read_with_its_defaults() {
        let slice = Slice::read(&object(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": { "name": "web-x", "namespace": "shop", "labels": { SERVICE_NAME: "web" } },
            "addressType": "IPv4",
            "ports": [
                { "name": "http", "port": 8080, "protocol": "TCP" },
                { "name": "dns", "port": 53, "protocol": "UDP" },
                { "name": "any", "port": null },
                { "port": 9000 },
            ],
            "endpoints": [
                { "addresses": ["10.0.0.1", "10.0.0.9"], "targetRef": { "kind": "Pod", "name": "web-1", "uid": "u1" } },
                { "addresses": ["10.0.0.2"], "conditions": { "ready": false, "terminating": true } },
                { "addresses": [] },
                { "addresses": ["web.example"] },
            ],
        })))
        .expect("right");
        assert_eq!(slice.service, Key { namespace: "shop".to_owned(), name: "web".to_owned() });
        assert_eq!(slice.family, Some(Family::V4));
        let ports: Vec<_> = slice.ports.iter().map(|port| (port.name.as_str(), port.number)).collect();
        assert_eq!(ports, [("http", 8080), ("", 9000)]);
        let seen: Vec<_> = slice
            .endpoints
            .iter()
            .map(|of| (of.address.to_string(), of.ready, of.serving, of.terminating))
            .collect();
        let expected =
            [("10.0.0.1".to_owned(), true, true, false), ("10.0.0.2".to_owned(), false, false, true)];
        assert_eq!(seen, expected);
    }

    #[test]
    fn lists_may_be_null() {
        let slice = Slice::read(&object(json!({
            "metadata": { "name": "x", "namespace": "shop", "labels": { SERVICE_NAME: "web" } },
            "addressType": "FQDN", "ports": null, "endpoints": null,
        })))
        .expect("right");
        assert_eq!((slice.family, slice.ports.len(), slice.endpoints.len()), (None, 0, 0));
        let service = Service::read(&object(json!({
            "metadata": { "name": "web", "namespace": "shop", "annotations": { DISCOVER: "true" } },
            "spec": { "ipFamilies": ["IPv6", "IPv4"], "ports": [{ "port": 80 }] },
        })))
        .expect("right");
        assert_eq!(service.families, [Family::V6, Family::V4]);
        assert_eq!((service.discover.as_deref(), service.ports.len()), (Some("true"), 1));
    }

    #[test]
    fn an_object_of_another_form_is_an_error() {
        let without = object(json!({ "metadata": { "name": "x", "namespace": "y" }, "addressType": "IPv4" }));
        assert!(Slice::read(&without).is_err_and(|error| error.to_string().contains(SERVICE_NAME)));
        assert!(Service::read(&object(json!({ "metadata": {} }))).is_err());
        let wrong = json!({
            "metadata": { "name": "x", "namespace": "y", "labels": { SERVICE_NAME: "web" } },
            "addressType": 4,
        });
        assert!(Slice::read(&object(wrong)).is_err());
    }
}
