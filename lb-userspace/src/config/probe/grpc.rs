//! `[service.NAME.probe.grpc]`.

use lb_core::config::GrpcProbe;

use super::{
    super::reader::{Node, Table, quoted},
    http, tls,
};

pub(super) fn read(table: &Table<'_>) -> Option<GrpcProbe> {
    let service = table.or("service", String::new(), service);
    let host = table.or("host", None, |node| http::host(node).map(Some));
    let tls = table.or("tls", false, Node::boolean);
    let tls = match tls.map(|tls| tls.value) {
        Some(true) => tls::read(table, table.node("host").and_then(Node::as_str)).map(Some),
        Some(false) => tls::none(table, "add `tls = true`").map(|()| None),
        None => None,
    };
    Some(GrpcProbe { service: service?.value, host: host?.value, tls: tls? })
}

/// What the health service knows it by. Most often `package.Service`, but it is a free text.
fn service(node: &Node<'_>) -> Option<String> {
    const EXAMPLE: &str = "service = \"shop.v1.Cart\"";
    const LONGEST: usize = 1024;
    let Some(text) = node.as_str() else { return node.expected("the name of a service", EXAMPLE) };
    if text.len() > LONGEST || text.chars().any(char::is_control) {
        return node.reject(
            format!("{} is not the name of a service", quoted(text)),
            format!("write for example `{EXAMPLE}`, or nothing for the server as a whole"),
        );
    }
    Some(text.to_owned())
}
