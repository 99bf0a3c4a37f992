//! Answers: documents, failures, and objects with their version.

use std::io;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::{Response, header};
use serde_json::{Value, json};

use super::objects::Kind;

pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// The object with the version that it was asked for in.
pub(super) fn stamped(object: &Value, kind: Kind, group_version: &str) -> Value {
    let mut object = object.clone();
    object["apiVersion"] = json!(group_version);
    object["kind"] = json!(kind.name());
    object
}

pub(super) fn failure(code: u16, message: &str) -> Value {
    let reason = match code {
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        410 => "Expired",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        _ => "InternalError",
    };
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    })
}

pub(super) fn status(code: u16, message: &str) -> Response<Body> {
    document(code, &failure(code, message))
}

pub(super) fn document(code: u16, of: &Value) -> Response<Body> {
    let text = Full::new(Bytes::from(of.to_string())).map_err(|never| match never {}).boxed_unsync();
    json_response(code, text)
}

pub(super) fn json_response(code: u16, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = code.try_into().expect("a status");
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
