//! The suites of the labs: in which lane each runs, and at which hooks.
//!
//! The lanes run beside each other, each one suite at a time. A suite of [`Lane::Computes`] keeps a CPU busy. The suites of the
//! other two mostly sleep until a deadline in real time, so they share the second CPU. Suites cannot meet: the names of
//! namespaces, folders and instances hold the process id of their test program.

/// The package that holds them.
pub(super) const PACKAGE: &str = "lb-tests";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    Computes,
    Waits,
    /// Waits too, for the longest: connections that drain.
    Drains,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    Xdp,
    Tc,
}

#[derive(Debug)]
pub(super) struct Suite {
    /// Of its file in tests/tests; `lb_tests` is the library itself.
    pub(super) name: &'static str,
    pub(super) lane: Lane,
    /// Also at tc: frame by frame, and from end to end with devices that finish checksums and cut segments.
    pub(super) hooks: &'static [Hook],
}

const XDP: &[Hook] = &[Hook::Xdp];
const BOTH: &[Hook] = &[Hook::Xdp, Hook::Tc];

/// In the order in which each lane runs them.
pub(super) const SUITES: &[Suite] = &[
    row("lb_tests", Lane::Computes, XDP),
    row("packet", Lane::Computes, BOTH),
    row("model", Lane::Computes, XDP),
    row("sweep", Lane::Computes, XDP),
    row("churn", Lane::Computes, XDP),
    row("storm", Lane::Computes, XDP),
    row("evidence", Lane::Computes, XDP),
    row("families", Lane::Computes, BOTH),
    row("limits", Lane::Computes, BOTH),
    row("lab", Lane::Computes, XDP),
    row("drain", Lane::Drains, XDP),
    row("stacks", Lane::Drains, BOTH),
    row("discovery", Lane::Drains, XDP),
    row("detect", Lane::Waits, BOTH),
    row("suspects", Lane::Waits, BOTH),
    row("demo", Lane::Waits, XDP),
    row("founding", Lane::Waits, XDP),
    row("kube", Lane::Waits, XDP),
    row("operator", Lane::Waits, XDP),
    row("breaker", Lane::Waits, XDP),
    row("refusals", Lane::Waits, XDP),
    row("campaign", Lane::Waits, XDP),
    row("redispatch", Lane::Waits, BOTH),
    row("modes", Lane::Waits, XDP),
    row("path", Lane::Waits, XDP),
    row("edge", Lane::Waits, XDP),
    row("stations", Lane::Waits, BOTH),
    row("unanswerable", Lane::Waits, XDP),
];

const fn row(name: &'static str, lane: Lane, hooks: &'static [Hook]) -> Suite {
    Suite { name, lane, hooks }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{files, place::workspace};

    #[test]
    fn each_suite_has_one_row() {
        let folder = workspace().join("tests/tests");
        let mut there: Vec<String> = files::below(&folder, &["rs"])
            .expect("the suites can be listed")
            .iter()
            .filter(|path| path.parent() == Some(folder.as_path()))
            .filter_map(|path| Some(path.file_stem()?.to_string_lossy().into_owned()))
            .collect();
        there.push("lb_tests".to_owned());
        there.sort();
        let mut listed: Vec<&str> = SUITES.iter().map(|suite| suite.name).collect();
        listed.sort_unstable();
        assert_eq!(listed, there);
    }
}
