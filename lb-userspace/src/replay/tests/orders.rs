//! Operators' orders in a recording.

use super::{CONFIG, all, replay};

#[test]
fn an_order_about_nobody_is_left_out_and_counted() {
    let mut replay = replay(CONFIG);
    all(
        &mut replay,
        &[
            r#"{"t_ms":1000,"backend":"web-9","op":"drain","actor":"alice"}"#,
            r#"{"t_ms":1000,"service":"wbe","backend":"web-1","op":"drain","actor":"alice"}"#,
            r#"{"t_ms":2000,"backend":"web-1","status":200}"#,
        ],
    );
    let summary = replay.summary();
    assert_eq!((summary.misplaced, summary.total.responses), (2, 1));
}
