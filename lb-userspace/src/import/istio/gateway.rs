//! Gateways: where clients come in.

use std::net::IpAddr;

use super::object::{Id, Object};
use crate::import::{draft::Origin, fields::Field, note::NoteCode};

pub(super) struct Gateway<'n> {
    pub(super) id: Id,
    pub(super) servers: Vec<Server<'n>>,
}

pub(super) struct Server<'n> {
    pub(super) port: u16,
    pub(super) protocol: Protocol,
    /// `bind`, if it is an address.
    pub(super) bind: Option<(IpAddr, Origin)>,
    /// Where the port stands.
    pub(super) field: Field<'n>,
}

/// Which of a VirtualService's routes a server takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http,
    Tcp,
    /// TLS that passes through.
    Tls,
}

pub(super) fn read<'n>(object: &Object<'n>) -> Option<Gateway<'n>> {
    let spec = object.fields.required("spec")?.map()?;
    // Which pods do the work.
    spec.ignore(&["selector"]);
    let servers = spec.required("servers")?.list()?;
    Some(Gateway { id: object.id.clone(), servers: servers.iter().filter_map(server).collect() })
}

fn server<'n>(field: &Field<'n>) -> Option<Server<'n>> {
    let fields = field.map()?;
    fields.ignore(&["name", "defaultEndpoint"]);
    let hosts = fields.get("hosts");
    let bind = fields.get("bind");
    let tls = fields.get("tls");
    let port = fields.required("port")?.map()?;
    port.ignore(&["name", "targetPort"]);
    let (number, protocol) = (port.required("number")?, port.required("protocol")?);
    if let Some(hosts) = hosts {
        every_host(&hosts);
    }
    let mut passes = false;
    if let Some(tls) = &tls {
        let tls = tls.map()?;
        tls.refuse(
            &["httpsRedirect"],
            NoteCode::NeedsProxy,
            "Shunt answers no request itself, so it cannot redirect",
            "",
        );
        if let Some(mode) = tls.get("mode") {
            passes = mode.text()? == "PASSTHROUGH";
            if !passes {
                refuse_tls(&mode);
                tls.ignore_rest();
            }
        }
    }
    let protocol = match protocol.text()? {
        "HTTP" | "HTTP2" | "GRPC" | "GRPC-WEB" => Protocol::Http,
        "TCP" | "MONGO" | "MYSQL" | "REDIS" => Protocol::Tcp,
        "TLS" | "HTTPS" if passes => Protocol::Tls,
        "TLS" | "HTTPS" => {
            if tls.is_none() {
                refuse_tls(&protocol);
            }
            return None;
        }
        other => return protocol.bad(format!("{other:?} is not a protocol of a Gateway")),
    };
    let bind = bind.and_then(|bind| {
        let text = bind.text()?;
        if text.starts_with("unix:") {
            bind.note(NoteCode::NotCarried, "Shunt does not listen on a Unix socket", "give --vip");
            return None;
        }
        let address = bind.address()?;
        (!address.is_unspecified()).then(|| (address, Origin::from(&bind)))
    });
    Some(Server { port: number.port()?, protocol, bind, field: number })
}

fn refuse_tls(field: &Field<'_>) {
    let message = "Shunt does not end TLS, so this port is left out";
    field.note(NoteCode::NeedsTls, message, "let the backends end it and use PASSTHROUGH");
}

/// Hosts other than all of them are no rule of an L4 balancer.
pub(super) fn every_host(field: &Field<'_>) {
    for host in field.list().into_iter().flatten() {
        if host.text().is_some_and(|text| text.rsplit('/').next() != Some("*")) {
            let message = "Shunt does not look at the Host header: this port serves requests for every host";
            host.note(NoteCode::Differs, message, "");
        }
    }
}
