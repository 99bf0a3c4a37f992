//! The findings of the checks.

lb_core::codes! {
    /// The finding of a check. In `findings` of `doctor` and in `warnings` of `status`.
    FindingCode {
        /// Nothing is wrong.
        Ok = "ok",
        /// The fact could not be read.
        Unknown = "unknown",
        /// The kernel lacks what the program needs.
        KernelTooOld = "kernel_too_old",
        /// `xdp_mode = "tc"` needs a newer kernel.
        NoTcx = "no_tcx",
        /// The kernel has no BTF.
        NoBtf = "no_btf",
        /// The kernel interprets programs.
        NoJit = "no_jit",
        /// The process lacks capabilities.
        MissingCapabilities = "missing_capabilities",
        /// The BPF file system is in a mount namespace of its own.
        BpffsPrivate = "bpffs_private",
        /// There is no folder for the BPF file system.
        BpffsMissing = "bpffs_missing",
        /// `nat_ports` overlaps the host's own ports.
        PortsOverlap = "ports_overlap",
        /// A VIP has a port of the host's own.
        VipPortsOfHost = "vip_ports_of_host",
        /// The flow tables take more than half of the memory that is left.
        MemoryTight = "memory_tight",
        /// The flow tables do not fit into memory.
        MemoryShort = "memory_short",
        /// A control group leaves too little memory.
        CgroupShort = "cgroup_short",
        /// The pinned flow tables have another size.
        OtherMaxFlows = "other_max_flows",
        /// The interface is down.
        LinkDown = "link_down",
        /// There is no such interface.
        NoInterface = "no_interface",
        /// No native XDP: Shunt uses tc ingress.
        FallsToTc = "falls_to_tc",
        /// No native XDP and no tcx.
        NoAttachMode = "no_attach_mode",
        /// A veth has too few receive queues for native XDP.
        VethQueues = "veth_queues",
        /// No native XDP: Shunt uses generic XDP.
        FallsToGeneric = "falls_to_generic",
        /// No native XDP, and the configuration asks for it.
        NoNativeXdp = "no_native_xdp",
        /// The kernel does not report whether it has native XDP.
        NativeUnknown = "native_unknown",
        /// Another program is attached.
        HookTaken = "hook_taken",
        /// A program is attached, and its owner is not known.
        HookOwnerUnknown = "hook_owner_unknown",
        /// Frames of this MTU do not fit into one buffer.
        MtuAboveBuffer = "mtu_above_buffer",
        /// Another interface has a smaller MTU.
        MtusDiffer = "mtus_differ",
        /// Frames that are redirected to this veth vanish.
        VethWithoutNapi = "veth_without_napi",
        /// The driver takes no redirected frames.
        RedirectRefused = "redirect_refused",
        /// LRO is on.
        LroOn = "lro_on",
        /// GRO is on with generic XDP.
        GroOn = "gro_on",
        /// The device removes VLAN tags.
        TagsRemoved = "tags_removed",
        /// Frames come with unfinished checksums.
        ChecksumsUnfinished = "checksums_unfinished",
        /// It is not known whether checksums are finished.
        ChecksumsUnknown = "checksums_unknown",
        /// `rp_filter` is strict.
        RpFilterStrict = "rp_filter_strict",
    }
}
