//! `shunt explain`.

use super::{
    args::{self, Plain},
    exit::{Exit, Failure},
    out,
    palette::Palette,
    render,
};
use crate::control::client::{Client, ClientError};

pub(super) async fn run(client: &Client, args: &args::Explain) -> Result<Exit, Failure> {
    let json = client.explain_json(args.client, &args.service).await?;
    let text = match args.output {
        Plain::Table => {
            let explanation = serde_json::from_slice(&json).map_err(ClientError::Garbled)?;
            render::explanation(&explanation, &Palette::of_stdout())
        }
        Plain::Json => format!("{}\n", String::from_utf8_lossy(&json)),
    };
    out::print(&text)?;
    Ok(Exit::Done)
}
