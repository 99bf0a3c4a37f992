//! `on_eject = "reset"`: a response that pauses is under way, for some seconds.

use std::{
    io::{Read as _, Write as _},
    time::Duration,
};

use anyhow::Result;
use lb_tests::{lab::skipped, scripted::Scripted};

use crate::stage::{Family, Plan, Stage};

#[test]
fn a_response_that_pauses_is_one_under_way() -> Result<()> {
    const PAUSE: Duration = Duration::from_secs(8);
    if skipped("a_response_that_pauses_is_one_under_way", &[]) {
        return Ok(());
    }
    let policy = "on_eject = \"reset\"\nbackends.slow = \"10.20.0.2:8081\"\n\
                  [service.web.breaker]\nbase_ejection_time = \"60s\"\nmin_serving = 0\nmax_ejection_percent = 100\n";
    let stage = Stage::new(&Plan {
        prefix: "pause",
        family: Family::V4,
        backends: 1,
        fallback: 0,
        delay: Duration::ZERO,
        policy,
    })?;
    let listen = (lb_lab::Topology::address(0), 8081).into();
    let _server = Scripted::start(&stage.topology.backends[0], listen, move |line| {
        while line.request()?.is_some() {
            line.say("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf")?;
            std::thread::sleep(PAUSE);
            line.say("half")?;
        }
        Ok(())
    })?;
    stage.order("disable", 0, &["--wait"])?;
    let mut stream = stage.connect()?;
    stream.set_read_timeout(Some(2 * PAUSE))?;
    write!(stream, "GET / HTTP/1.1\r\nHost: lab\r\n\r\n")?;
    let mut begun = [0; 10];
    stream.read_exact(&mut begun)?;
    stage.ask(&["backend", "eject", "web/slow", "--force", "--wait"])?.succeeds();
    let mut rest = vec![0; 32 + 8 + 1];
    let length = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalfhalf".len();
    rest.resize(length - begun.len(), 0);
    stream.read_exact(&mut rest)?;
    assert!(rest.ends_with(b"halfhalf"));
    Ok(())
}
