use std::collections::BTreeSet;

use lb_core::io::Input;
use tokio::sync::mpsc;

use super::*;

#[tokio::test]
async fn the_prober_answers_each_probe_once() {
    let (_listener, address) = listener().await;
    let (results, mut inputs) = mpsc::channel(4);
    let mut prober = Prober::new(results);
    for id in 0..20 {
        prober.start(ProbeRequest { backend: BackendId(id), ..request(address, ProbeKind::Tcp) });
    }
    let mut answered = BTreeSet::new();
    for _ in 0..20 {
        let Some(Input::Probe { backend, generation, result }) = inputs.recv().await else {
            panic!("an answer")
        };
        assert_eq!((generation, result), (Generation(2), ProbeResult::Pass));
        assert!(answered.insert(backend));
    }
    drop(prober);
    assert_eq!(inputs.recv().await, None);
}

#[tokio::test]
async fn no_more_probes_than_allowed_are_under_way() {
    let (listener, address) = listener().await;
    let (results, mut inputs) = mpsc::channel(16);
    let mut prober = Prober::with_limit(results, 2);
    for _ in 0..3 {
        let request = request(address, ProbeKind::Http(HttpProbe::default()));
        // One of them waits in vain.
        prober.start(ProbeRequest { timeout: Millis::secs(3), ..request });
    }
    let mut first = listener.accept().await.expect("a connection").0;
    let _second = listener.accept().await.expect("a connection").0;
    let third = timeout(Duration::from_millis(100), listener.accept()).await;
    assert!(third.is_err(), "a third connection while two are open");
    // One ends, and the third begins with a timeout of its own.
    read_head(&mut first).await;
    first.write_all(OK).await.expect("written");
    drop(first);
    let mut third = listener.accept().await.expect("a connection").0;
    read_head(&mut third).await;
    third.write_all(OK).await.expect("written");
    drop(third);
    let mut passes = 0;
    for _ in 0..3 {
        let Some(Input::Probe { result, .. }) = inputs.recv().await else { panic!("an answer") };
        passes += usize::from(result == ProbeResult::Status(200));
    }
    assert_eq!(passes, 2);
}

#[tokio::test]
async fn dropping_the_prober_ends_its_probes() {
    let (listener, address) = listener().await;
    let (results, mut inputs) = mpsc::channel(1);
    let mut prober = Prober::new(results);
    let patient = ProbeRequest {
        timeout: Millis::secs(3600),
        ..request(address, ProbeKind::Http(HttpProbe::default()))
    };
    prober.start(patient);
    let (mut stream, _) = listener.accept().await.expect("a connection");
    read_head(&mut stream).await;
    drop(prober);
    assert_eq!(inputs.recv().await, None);
    assert_eq!(stream.read(&mut [0; 1]).await.expect("an orderly end"), 0);
}

#[tokio::test]
async fn those_that_wait_go_in_the_order_in_which_they_came() {
    // Nobody answers on these, so each holds its place until its timeout.
    let (silent, hung) = listener().await;
    let (results, mut inputs) = mpsc::channel(1);
    let mut prober = Prober::with_limit(results, 2);
    let begun = Instant::now();
    for id in 0..8 {
        let kind = ProbeKind::Http(HttpProbe::default());
        prober.start(ProbeRequest { backend: BackendId(id), timeout: SHORT, ..request(hung, kind) });
    }
    let mut order = Vec::new();
    for _ in 0..8 {
        let Some(Input::Probe { backend, result, .. }) = inputs.recv().await else { panic!("an answer") };
        // Each had its whole time, although the last had waited three times as long before.
        assert_eq!(result, fail("timeout after 300ms"));
        order.push(backend.0 / 2);
    }
    assert_eq!(order, [0, 0, 1, 1, 2, 2, 3, 3]);
    assert!(begun.elapsed() >= Duration::from_millis(4 * 300));
    drop(silent);
}
