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

/// Its name for the health service. Usually `package.Service`, but any text is possible.
fn service(node: &Node<'_>) -> Option<String> {
    const EXAMPLE: &str = "service = \"shop.v1.Cart\"";
    const LONGEST: usize = 1024;
    let Some(text) = node.as_str() else { return node.expected("the name of a service", EXAMPLE) };
    if text.len() > LONGEST || text.chars().any(char::is_control) {
        return node.reject(
            format!("{} is not the name of a service", quoted(text)),
            format!("write for example `{EXAMPLE}`, or an empty text for the whole server"),
        );
    }
    Some(text.to_owned())
}
