//! The parts of the code whose mutants are tried, and the tests that should notice.

use clap::ValueEnum;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// lb-core
    Core,
    /// lb-common
    Common,
    /// The library of lb-ebpf, which also builds for the host
    Ebpf,
    /// The parts of lb-userspace that touch nothing
    Userspace,
}

/// Which of its part's tests a mutant gets to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rigour {
    /// The quick ones. They notice nearly all.
    Quick,
    /// All, for those that are left.
    Thorough,
}

impl Rigour {
    /// After so many seconds a run of the tests counts as endless. The machine may be busy.
    pub(super) const fn patience(self) -> &'static str {
        match self {
            Self::Quick => "30",
            Self::Thorough => "120",
        }
    }
}

impl Part {
    pub(super) const ALL: [Self; 4] = [Self::Core, Self::Common, Self::Ebpf, Self::Userspace];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Core => "core",
            Self::Common => "common",
            Self::Ebpf => "ebpf",
            Self::Userspace => "userspace",
        }
    }

    pub(super) const fn package(self) -> &'static str {
        match self {
            Self::Core => "lb-core",
            Self::Common => "lb-common",
            Self::Ebpf => "lb-ebpf",
            Self::Userspace => "lb-userspace",
        }
    }

    /// Everything that is mutated lies below.
    pub(super) const fn folder(self) -> &'static str {
        match self {
            Self::Core => "lb-userspace/core/",
            Self::Common => "lb-common/",
            Self::Ebpf => "lb-ebpf/",
            Self::Userspace => "lb-userspace/src/",
        }
    }

    /// Where mutants are made. Empty: in the whole package.
    pub(super) const fn files(self) -> &'static [&'static str] {
        match self {
            Self::Core | Self::Common => &[],
            // The rest builds only for the kernel: `--program` has mutants of it. `verifier.rs` does nothing here.
            Self::Ebpf => &[
                "lb-ebpf/src/family.rs",
                "lb-ebpf/src/frame.rs",
                "lb-ebpf/src/head.rs",
                "lb-ebpf/src/icmp.rs",
                "lb-ebpf/src/reset.rs",
                "lb-ebpf/src/segment.rs",
                "lb-ebpf/src/stamps.rs",
                "lb-ebpf/src/syn.rs",
                "lb-ebpf/src/translate.rs",
            ],
            Self::Userspace => &[
                // Text to types.
                "lb-userspace/src/config/**",
                // Records to inputs. The ring belongs to the dataplane.
                "lb-userspace/src/evidence/**",
                // The engine in virtual time.
                "lb-userspace/src/replay/**",
                // A line of a recording, both ways. Its neighbours own files.
                "lb-userspace/src/journal/line/**",
                // Types to text.
                "lb-userspace/src/cli/render/**",
                "lb-userspace/src/cli/render.rs",
                "lb-userspace/src/cli/json/**",
                "lb-userspace/src/printable.rs",
            ],
        }
    }

    /// The packages whose tests should notice. Nearly all that `lb-common` holds is tested by those who use it.
    pub(super) const fn tested_by(self) -> &'static str {
        match self {
            Self::Core => "lb-core",
            Self::Common => "lb-common,lb-ebpf,lb-core",
            Self::Ebpf => "lb-ebpf",
            Self::Userspace => "lb-userspace",
        }
    }

    /// Which of their tests: suites that start the binary or need a kernel are none of them.
    pub(super) const fn targets(self, rigour: Rigour) -> &'static [&'static str] {
        match (self, rigour) {
            (Self::Core, Rigour::Thorough) => &["--lib", "--tests"],
            _ => &["--lib"],
        }
    }

    /// Tests that are left out, by parts of their names.
    pub(super) const fn skipped(self, rigour: Rigour) -> &'static [&'static str] {
        match rigour {
            Rigour::Quick => self.slow_tests(),
            Rigour::Thorough => &[],
        }
    }

    /// Tests that take seconds or are far from what is changed, by parts of their names.
    pub(super) const fn slow_tests(self) -> &'static [&'static str] {
        match self {
            Self::Core | Self::Common => &[
                "engine::tests::storm",
                "engine::tests::history",
                "engine::tests::success_counts",
                "an_id_that_changes_hands",
                "maglev::tests::removing_one",
                "maglev::tests::adding_it_again",
                "flows_fall_into_sets_as_if_thrown",
            ],
            Self::Ebpf => &[],
            // The mutants lie in modules that touch nothing, so the tests of the other modules come last.
            Self::Userspace => &[
                "attach_mode::",
                "control::",
                "daemon::",
                "dataplane::",
                "doctor::",
                "files::",
                "journal::file",
                "probe::",
                "state::",
                "a_damaged_file_never_panics",
                "replay::tests::founding",
                "replay::tests::recording",
                "too_many_services_or_backends",
                "what_an_intake_remembers",
            ],
        }
    }
}
