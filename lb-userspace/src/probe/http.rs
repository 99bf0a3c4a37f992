//! The HTTP/1.1 exchange of a probe.

use std::{net::SocketAddr, pin::pin};

use bytes::Bytes;
use futures_util::future::{Either, select};
use http_body_util::{BodyExt, Empty};
use hyper::{
    Request, Response,
    body::{Body, Incoming},
    client::conn::http1,
    header,
};
use hyper_util::rt::TokioIo;
use lb_core::{config::HttpProbe, io::ProbeResult};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};

use super::{
    close::{LINGER, MOST_READ},
    deadline::Deadline,
    failure::{Failure, Read},
};

pub(super) const USER_AGENT: &str = concat!("shunt/", env!("CARGO_PKG_VERSION"));

/// Asks once. The result is the status, unless the body is not as expected.
pub(super) async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin,
    address: SocketAddr,
    probe: &HttpProbe,
    deadline: Deadline,
) -> Result<ProbeResult, Failure> {
    let request = request(address, probe).map_err(Failure::Request)?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MOST_READ)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| Failure::hyper(&error))?;
    let answer = async move {
        let response = deadline.limit(sender.send_request(request)).await?;
        let response = response.map_err(|error| Failure::hyper(&error))?;
        let status = response.status().as_u16();
        if probe.expects(status) {
            deadline.limit(read(response, probe.expect_body.as_deref())).await??;
        } else {
            // The status decides. The body is read only so that the connection ends without a reset.
            let _ = timeout(LINGER, read(response, None)).await;
        }
        Ok(ProbeResult::Status(status))
    };
    match select(pin!(answer), pin!(connection)).await {
        Either::Left((result, connection)) => {
            if result.is_ok() {
                let _ = timeout(LINGER, connection).await;
            }
            result
        }
        Either::Right((_, answer)) => answer.await,
    }
}

fn request(address: SocketAddr, probe: &HttpProbe) -> Result<Request<Empty<Bytes>>, hyper::http::Error> {
    let host = probe.host.clone().unwrap_or_else(|| address.to_string());
    let mut request =
        Request::builder().method(probe.method.as_str()).uri(probe.path.as_str()).header(header::HOST, host);
    if !probe.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(header::USER_AGENT.as_str())) {
        request = request.header(header::USER_AGENT, USER_AGENT);
    }
    for (name, value) in &probe.headers {
        request = request.header(name.as_str(), value.as_str());
    }
    request.body(Empty::new())
}

/// Reads the body to its end, or up to [`MOST_READ`], and looks for a text in it.
async fn read(response: Response<Incoming>, text: Option<&str>) -> Result<(), Failure> {
    let status = response.status().as_u16();
    // Such a body ends with its connection. In TLS the backend should announce that end, and often does not.
    // The announcement protects from a body that an attacker cut off, which is no danger here.
    let until_close = response.body().size_hint().exact().is_none()
        && !response.headers().contains_key(header::TRANSFER_ENCODING);
    let mut body = response.into_body();
    let (mut read, mut kept) = (0, Vec::new());
    let mut whole = true;
    while let Some(frame) = body.frame().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) if until_close && matches!(Failure::hyper(&error), Failure::ClosedEarly) => break,
            Err(_) => return Err(Failure::EndedEarly),
        };
        let Some(data) = frame.data_ref() else { continue };
        read += data.len();
        if text.is_some() {
            kept.extend_from_slice(data);
        }
        if read >= MOST_READ {
            whole = body.is_end_stream();
            break;
        }
    }
    kept.truncate(MOST_READ);
    match text.map(str::as_bytes) {
        Some(text) if !kept.windows(text.len()).any(|part| part == text) => {
            Err(Failure::Body { status, read: if whole { Read::Whole } else { Read::First(MOST_READ) } })
        }
        Some(_) | None => Ok(()),
    }
}
