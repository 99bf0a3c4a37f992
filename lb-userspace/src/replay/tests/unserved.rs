//! Exchanges that nobody would have served.

use super::*;

/// Good responses of a recording, under a configuration that leaves nobody to give them.
#[test]
fn a_good_response_that_nobody_would_give_is_an_error_that_a_client_saw() {
    let alone =
        CONFIG.replace("web-2 = \"10.0.0.12:80\"\n", "").replace("interval", "min_serving = 0\ninterval");
    let mut replay = replay(&alone);
    statuses(&mut replay, 1000, "web-1", &[500, 500, 500]);
    all(&mut replay, &[r#"{"t_ms":2000,"backend":"web-1","good":50}"#]);
    let total = replay.summary().total;
    assert_eq!((total.responses, total.errors, total.unserved, total.client_errors), (53, 3, 50, 53));
}
