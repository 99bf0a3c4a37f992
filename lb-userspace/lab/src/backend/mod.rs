//! A web server that fails on command.
//!
//! It answers a part of its requests with 500, which ones being decided by a seed, so that two
//! runs fail alike; its probe path goes on answering 200. It can be broken and healed while it runs, and it keeps a
//! book of connections and failures with times of CLOCK_MONOTONIC, which are comparable between processes.
//!
//! It obeys lines on standard input, each answered by one line, and ends with its input:
//!
//! | line | effect |
//! |---|---|
//! | `break` | fails the part that `--broken` says |
//! | `heal` | fails nothing |
//! | `fraction 0.25` | fails a quarter |
//! | `delay 50` | answers after 50 ms |
//! | `probe up`, `probe down` | the probe path answers 200 or 503 |
//! | `report [NS]` | a [`Report`] as JSON, with connections and failures since that moment |

mod book;
mod remote;
#[cfg(test)]
mod tests;

use std::{
    convert::Infallible,
    io::{self, BufRead, Write},
    net::SocketAddr,
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::oneshot,
};

use self::book::{Book, Script};
pub use self::{
    book::{Connection, Failure, Report},
    remote::Remote,
};

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Address and port to listen on
    #[arg(long)]
    pub listen: SocketAddr,
    /// Sent with every answer as `x-backend`
    #[arg(long, default_value = "backend")]
    pub name: String,
    #[arg(long, value_enum, default_value_t = Mode::Ok)]
    pub mode: Mode,
    /// The part of requests that fail after `break`
    #[arg(long, default_value_t = 0.5)]
    pub broken: f64,
    /// Decides which requests fail
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Answers 200 whatever the mode
    #[arg(long, default_value = "/healthz")]
    pub probe_path: String,
}

/// How it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    Ok,
    HalfBad,
    Bad,
}

/// Serves until standard input ends. Says `listening ADDRESS` once it does.
pub async fn main(args: Args) -> Result<()> {
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("backend {} cannot listen on {}", args.name, args.listen))?;
    let book = Arc::new(Book::new(Script::new(&args)));
    let (end, ended) = oneshot::channel();
    let controlled = Arc::clone(&book);
    say(&format!("listening {}", listener.local_addr()?))?;
    thread::spawn(move || {
        // A reader that is gone ends it like the end of its input.
        let _ = obey(&controlled, io::stdin().lock(), io::stdout());
        let _ = end.send(());
    });
    tokio::select! {
        outcome = serve(listener, Arc::new(args), book) => outcome,
        _ = ended => Ok(()),
    }
}

fn say(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}

fn obey(book: &Book, orders: impl BufRead, mut answers: impl Write) -> io::Result<()> {
    for order in orders.lines() {
        let answer = book.obey(&order?);
        writeln!(answers, "{answer}")?;
        answers.flush()?;
    }
    Ok(())
}

async fn serve(listener: TcpListener, args: Arc<Args>, book: Arc<Book>) -> Result<()> {
    loop {
        let (stream, peer) = listener.accept().await.context("accepting")?;
        let connection = book.accepted(peer);
        tokio::spawn(converse(stream, connection, Arc::clone(&args), Arc::clone(&book)));
    }
}

/// One connection, request by request. A connection that breaks is the client's affair.
async fn converse(stream: TcpStream, connection: u64, args: Arc<Args>, book: Arc<Book>) {
    // An answer goes out at once, or small ones would wait for the client's delayed ACK.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request: Request<Incoming>| {
        let answer = answer(&request, connection, &args, &book);
        let delay = if request.uri().path() == args.probe_path { Duration::ZERO } else { book.delay() };
        async move {
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

fn answer(request: &Request<Incoming>, connection: u64, args: &Args, book: &Book) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let status = if path == args.probe_path { book.probed(connection) } else { book.requested(connection) };
    let body = match path.strip_prefix("/bytes/").and_then(|count| count.parse::<u32>().ok()) {
        Some(count) => Bytes::from(vec![b'x'; count.min(MAX_BODY) as usize]),
        None => Bytes::from(format!("{} {status}\n", args.name)),
    };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = StatusCode::from_u16(status).expect("the book knows statuses only");
    if let Ok(name) = args.name.parse() {
        response.headers_mut().insert("x-backend", name);
    }
    response
}

/// `/bytes/N` answers at most this many.
const MAX_BODY: u32 = 64 << 20;

impl Mode {
    /// As the command line spells it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::HalfBad => "half-bad",
            Self::Bad => "bad",
        }
    }
}
