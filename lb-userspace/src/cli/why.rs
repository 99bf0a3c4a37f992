//! `shunt why`.

use super::{
    args::{self, Plain},
    exit::{Exit, Failure},
    out,
    palette::Palette,
    render,
};
use crate::control::client::{Client, ClientError};

pub(super) async fn run(client: &Client, args: &args::Why) -> Result<Exit, Failure> {
    let json = client.backend_json(&args.backend.service, &args.backend.backend, true).await?;
    let text = match args.output {
        Plain::Table => {
            let view = serde_json::from_slice(&json).map_err(ClientError::Garbled)?;
            render::backend(&view, &Palette::of_stdout())
        }
        Plain::Json => format!("{}\n", String::from_utf8_lossy(&json)),
    };
    out::print(&text)?;
    Ok(Exit::Done)
}
