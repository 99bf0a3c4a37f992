//! The keys of each table, and the key that an unknown one probably means.

/// The keys of one kind of table.
#[derive(Debug)]
pub(super) struct Keys {
    pub(super) known: &'static [&'static str],
    /// Planned keys, which the message names as such instead of "unknown".
    later: &'static [&'static str],
    /// Names that other programs use, in lower case without `_` and `-`.
    aliases: &'static [(&'static str, &'static str)],
}

pub(super) const ROOT: Keys = Keys {
    known: &[
        "instance",
        "interfaces",
        "xdp_mode",
        "control_socket",
        "state_file",
        "bpffs",
        "nat_addresses",
        "nat_ports",
        "vlans",
        "max_flows",
        "max_new_flows_per_second",
        "max_source_share",
        "min_path_mtu",
        "log",
        "record",
        "timeouts",
        "service",
    ],
    later: &["metrics_listen", "mirror"],
    aliases: &[
        ("services", "service"),
        ("interface", "interfaces"),
        ("vlan", "vlans"),
        ("socket", "control_socket"),
        ("timeout", "timeouts"),
    ],
};

pub(super) const RECORD: Keys = Keys {
    known: &["path", "max_size", "files"],
    later: &[],
    aliases: &[("file", "path"), ("size", "max_size"), ("keep", "files"), ("rotate", "files")],
};

pub(super) const MIN_PATH_MTU: Keys =
    Keys { known: &["ipv4", "ipv6"], later: &[], aliases: &[("v4", "ipv4"), ("v6", "ipv6")] };

pub(super) const TIMEOUTS: Keys = Keys {
    known: &["established", "closing", "handshake"],
    later: &[],
    aliases: &[
        ("tcp", "established"),
        ("idle", "established"),
        ("tcpfin", "closing"),
        ("fin", "closing"),
        ("syn", "handshake"),
    ],
};

pub(super) const SERVICE: Keys = Keys {
    known: &[
        "vip",
        "mode",
        "no_backend",
        "on_eject",
        "on_drain",
        "drain_timeout",
        "redispatch",
        "max_connections",
        "max_connections_per_backend",
        "overflow",
        "affinity",
        "affinity_prefix",
        "evidence",
        "allow",
        "deny",
        "backends",
        "fallback",
        "discovery",
        "probe",
        "breaker",
    ],
    later: &["mirror"],
    aliases: &[
        ("address", "vip"),
        ("bind", "vip"),
        ("listen", "vip"),
        ("servers", "backends"),
        ("whitelist", "allow"),
        ("allowlist", "allow"),
        ("blacklist", "deny"),
        ("denylist", "deny"),
        ("endpoints", "backends"),
        ("check", "probe"),
        ("healthcheck", "probe"),
        ("outlierdetection", "breaker"),
        ("circuitbreaker", "breaker"),
        ("backup", "fallback"),
        ("maxconn", "max_connections"),
        ("connectionlimit", "max_connections"),
        ("stickiness", "affinity"),
        ("sessionaffinity", "affinity"),
        ("persistence", "affinity"),
        ("onmarkeddown", "on_eject"),
        ("draintime", "drain_timeout"),
        ("deregistrationdelay", "drain_timeout"),
    ],
};

pub(super) const DISCOVERY: Keys = Keys {
    known: &["file", "interval"],
    later: &[],
    aliases: &[("path", "file"), ("inter", "interval"), ("refresh", "interval"), ("period", "interval")],
};

pub(super) const BACKEND: Keys = Keys {
    known: &["address", "weight", "probe_address", "max_connections"],
    later: &[],
    aliases: &[
        ("addr", "address"),
        ("host", "address"),
        ("checkaddress", "probe_address"),
        ("maxconn", "max_connections"),
    ],
};

pub(super) const PROBE: Keys = Keys {
    known: &["http", "https", "tcp", "grpc"],
    later: &[],
    aliases: &[
        ("tcpsocket", "tcp"),
        ("httpget", "http"),
        ("http1", "http"),
        ("tls", "https"),
        ("ssl", "https"),
    ],
};

/// The keys of one kind of probe, and the keys of all kinds.
macro_rules! probe_keys {
    ($($own:literal),*) => {
        Keys {
            known: &[
                $($own,)*
                "port",
                "interval",
                "timeout",
                "rise",
                "fall",
                "fast_interval",
                "down_interval",
                "jitter",
                "fail_open_percent",
            ],
            later: &[],
            aliases: PROBE_ALIASES,
        }
    };
}

pub(super) const PROBE_TCP: Keys = probe_keys!();

// Without TLS its keys are known only for a better message than "unknown".
pub(super) const PROBE_HTTP: Keys = PROBE_HTTPS;

pub(super) const PROBE_HTTPS: Keys = probe_keys!(
    "method",
    "path",
    "host",
    "headers",
    "expect",
    "expect_body",
    "fail_fast",
    "server_name",
    "ca",
    "insecure"
);

pub(super) const PROBE_GRPC: Keys = probe_keys!("service", "host", "tls", "server_name", "ca", "insecure");

const PROBE_ALIASES: &[(&str, &str)] = &[
    ("inter", "interval"),
    ("fastinter", "fast_interval"),
    ("downinter", "down_interval"),
    ("periodseconds", "interval"),
    ("timeoutseconds", "timeout"),
    ("healthythreshold", "rise"),
    ("successthreshold", "rise"),
    ("unhealthythreshold", "fall"),
    ("failurethreshold", "fall"),
    ("uri", "path"),
    ("url", "path"),
    ("status", "expect"),
    ("expectedstatuses", "expect"),
    ("body", "expect_body"),
    ("receive", "expect_body"),
    ("servicename", "service"),
    ("authority", "host"),
    ("sni", "server_name"),
    ("cafile", "ca"),
    ("cacert", "ca"),
    ("insecureskipverify", "insecure"),
    ("tlsskipverify", "insecure"),
];

pub(super) const BREAKER: Keys = Keys {
    known: &[
        "enforce",
        "shadow",
        "consecutive_5xx",
        "consecutive_gateway_failure",
        "split_l4_failures",
        "consecutive_l4_failure",
        "confirm_l4_failures",
        "min_clients",
        "connect_timeout",
        "response_timeout",
        "success_rate_min_responses",
        "success_rate_min_backends",
        "success_rate_stdev_factor",
        "failure_percentage_threshold",
        "failure_percentage_min_responses",
        "failure_percentage_min_backends",
        "error_rate_threshold",
        "error_rate_window",
        "error_rate_min_responses",
        "slow_threshold",
        "slow_rate_threshold",
        "slow_rate_window",
        "slow_rate_min_responses",
        "errors",
        "interval",
        "base_ejection_time",
        "max_ejection_time",
        "max_ejection_time_jitter",
        "max_ejection_percent",
        "always_eject_one",
        "min_serving",
        "half_open_trials",
        "half_open_successes",
        "half_open_timeout",
        "half_open_exit",
        "probe_readmits",
        "probe_uneject",
        "backoff_decay",
        "slow_start",
        "panic_threshold",
    ],
    later: &[],
    aliases: &[
        ("consecutive5xxerrors", "consecutive_5xx"),
        ("consecutiveerrors", "consecutive_5xx"),
        ("consecutivegatewayerrors", "consecutive_gateway_failure"),
        ("splitexternallocaloriginerrors", "split_l4_failures"),
        ("consecutivelocaloriginfailures", "consecutive_l4_failure"),
        ("successraterequestvolume", "success_rate_min_responses"),
        ("successrateminimumhosts", "success_rate_min_backends"),
        ("failurepercentagerequestvolume", "failure_percentage_min_responses"),
        ("failurepercentageminimumhosts", "failure_percentage_min_backends"),
        ("alwaysejectonehost", "always_eject_one"),
        ("minhealthpercent", "panic_threshold"),
        ("successfulactivehealthcheckunejecthost", "probe_uneject"),
        ("slowstartwindow", "slow_start"),
    ],
};

/// The meaning of a key that a table does not have.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unknown {
    Planned(&'static str),
    Meant(&'static str),
    /// It is a key of the top level.
    Misplaced,
    NoIdea,
}

impl Keys {
    pub(super) fn unknown(&self, key: &str) -> Unknown {
        let key = squeezed(key);
        let same = |keys: &[&'static str]| keys.iter().copied().find(|&known| squeezed(known) == key);
        if let Some(planned) = same(self.later) {
            return Unknown::Planned(planned);
        }
        if let Some(meant) = same(self.known) {
            return Unknown::Meant(meant);
        }
        if let Some(&(_, meant)) = self.aliases.iter().find(|(alias, _)| *alias == key) {
            return if self.later.contains(&meant) { Unknown::Planned(meant) } else { Unknown::Meant(meant) };
        }
        if same(ROOT.known).is_some() {
            return Unknown::Misplaced;
        }
        match nearest(&key, self.known) {
            Some(meant) => Unknown::Meant(meant),
            None => Unknown::NoIdea,
        }
    }
}

/// The candidate that differs from `word` by a few typing errors.
pub(super) fn nearest(word: &str, candidates: &[&'static str]) -> Option<&'static str> {
    const LONGEST: usize = 64;
    let word = squeezed(word);
    if word.len() > LONGEST {
        return None;
    }
    candidates
        .iter()
        .map(|&candidate| (strsim::damerau_levenshtein(&word, &squeezed(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 5)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The spelling without differences of style: `baseEjectionTime` and `base_ejection_time` are the same.
fn squeezed(key: &str) -> String {
    key.chars().filter(|c| !matches!(c, '_' | '-')).flat_map(char::to_lowercase).collect()
}
