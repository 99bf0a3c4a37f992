//! The HTTP/1.1 exchange of a probe.

use std::{error::Error, io, net::SocketAddr, pin::pin};

use bytes::Bytes;
use futures_util::future::{Either, select};
use http_body_util::{BodyExt, Empty};
use hyper::{Request, body::Incoming, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use lb_core::config::HttpProbe;
use tokio::{net::TcpStream, time::timeout};

use super::{Deadline, Failure, LINGER, MOST_READ};

const USER_AGENT: &str = concat!("shunt/", env!("CARGO_PKG_VERSION"));

/// Asks once and judges the status. The body is read, not looked at.
pub(super) async fn exchange(
    stream: TcpStream,
    address: SocketAddr,
    probe: &HttpProbe,
    deadline: Deadline,
) -> Result<(), Failure> {
    let request = request(address, probe).map_err(Failure::Request)?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MOST_READ)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failure(&error))?;
    let answer = async move {
        let response = deadline.hold(sender.send_request(request)).await?.map_err(|error| failure(&error))?;
        let status = response.status().as_u16();
        if !probe.expect.iter().any(|range| range.contains(&status)) {
            // Read only so that the connection ends without a reset.
            let _ = timeout(LINGER, drain(response.into_body())).await;
            return Err(Failure::Status(status));
        }
        deadline.hold(drain(response.into_body())).await?
    };
    match select(pin!(answer), pin!(connection)).await {
        Either::Left((result, connection)) => {
            // It has to send its FIN; the result is known.
            let _ = timeout(LINGER, connection).await;
            result
        }
        Either::Right((_, answer)) => answer.await,
    }
}

fn request(address: SocketAddr, probe: &HttpProbe) -> Result<Request<Empty<Bytes>>, hyper::http::Error> {
    let host = probe.host.clone().unwrap_or_else(|| address.to_string());
    let mut request = Request::builder()
        .method(probe.method.as_str())
        .uri(probe.path.as_str())
        .header(header::HOST, host)
        .header(header::CONNECTION, "close");
    if !probe.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(header::USER_AGENT.as_str())) {
        request = request.header(header::USER_AGENT, USER_AGENT);
    }
    for (name, value) in &probe.headers {
        request = request.header(name.as_str(), value.as_str());
    }
    request.body(Empty::new())
}

/// Reads the body to its end, or to where it is long enough.
async fn drain(mut body: Incoming) -> Result<(), Failure> {
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Failure::EndedEarly)?;
        read += frame.data_ref().map_or(0, Bytes::len);
        if read >= MOST_READ {
            break;
        }
    }
    Ok(())
}

/// What hyper's error comes down to: its innermost cause.
fn failure(error: &hyper::Error) -> Failure {
    let mut cause: &(dyn Error + 'static) = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    if let Some(error) = cause.downcast_ref::<io::Error>() {
        return Failure::Io(error.kind());
    }
    match cause.downcast_ref::<hyper::Error>() {
        Some(error) if error.is_incomplete_message() || error.is_canceled() || error.is_closed() => {
            Failure::ClosedEarly
        }
        Some(_) | None => Failure::NotHttp,
    }
}
