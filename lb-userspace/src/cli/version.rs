//! `shunt version`.

use serde_json::json;

use super::{
    args::{self, Plain},
    exit::{Exit, Failure},
    out,
};
use crate::control::{
    client::Client,
    model::{SCHEMA, Version},
};

pub(super) async fn run(client: &Client, args: &args::Version) -> Result<Exit, Failure> {
    let own = Version::own();
    // Without a daemon the program shows its own version only, which is no error.
    let daemon = client.version().await.ok();
    let text = match args.output {
        Plain::Table => table(&own, daemon.as_ref()),
        Plain::Json => {
            format!(
                "{}\n",
                json!({ "schema": SCHEMA, "version": own.version, "abi": own.abi, "daemon": daemon })
            )
        }
    };
    out::print(&text)?;
    Ok(Exit::Done)
}

fn table(own: &Version, daemon: Option<&Version>) -> String {
    let mut text = format!("shunt {} (map layout {})\n", own.version, own.abi);
    if let Some(Version { version, abi, pid }) = daemon {
        text += &format!("daemon {version} (map layout {abi}), process {pid}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemon_s_version_has_a_line_of_its_own() {
        let version = |version: &str, pid| Version { version: version.to_owned(), abi: 1, pid };
        assert_eq!(table(&version("0.2.0", 7), None), "shunt 0.2.0 (map layout 1)\n");
        assert_eq!(
            table(&version("0.2.0", 7), Some(&version("0.1.0", 9))),
            "shunt 0.2.0 (map layout 1)\ndaemon 0.1.0 (map layout 1), process 9\n"
        );
    }
}
