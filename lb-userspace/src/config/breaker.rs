//! `[service.NAME.breaker]`.

use std::collections::BTreeSet;

use lb_core::{
    breaker::sources,
    config::{BackoffDecay, Breaker, Detector, HalfOpenExit},
    time::Millis,
};

use super::{
    Code, keys,
    reader::{Node, Placed, Table},
    value,
};

/// More frequent sweeps cost more than they find out.
const LEAST_INTERVAL: Millis = Millis(10);
/// Ten buckets of a hundredth of a second.
const LEAST_WINDOW: Millis = Millis(100);
const MOST: u32 = 1_000_000;
const MOST_CLIENTS: u32 = sources::MOST as u32;
const LONGEST_WATCHED: Millis = Millis::secs(1800);
const LEAST_MAX_EJECTION_TIME: Millis = Millis::secs(300);

/// `backends`: how many backends the service has.
pub(super) fn read(node: &Node<'_>, backends: usize) -> Option<Breaker> {
    let table = node.table(&keys::BREAKER, "[service.web.breaker]")?;
    let default = Breaker::default();

    let enforce = table.or("enforce", default.enforce, Node::boolean);
    let shadow = table.or("shadow", default.shadow, shadow);
    let count = |key, default| table.or(key, default, |node| node.integer(0..=MOST));
    let percent = |key, default: u8| table.or(key, u32::from(default), value::percent);
    let span = |key, default| table.or(key, default, |node| value::duration(node, Millis(0)));
    let window = |key, default| table.or(key, default, |node| value::duration(node, LEAST_WINDOW));
    let consecutive_5xx = count("consecutive_5xx", default.consecutive_5xx);
    let gateway = count("consecutive_gateway_failure", default.consecutive_gateway_failure);
    let split = table.or("split_l4_failures", default.split_l4_failures, Node::boolean);
    let l4 = count("consecutive_l4_failure", default.consecutive_l4_failure);
    let confirm = table.or("confirm_l4_failures", default.confirm_l4_failures, Node::boolean);
    let clients = table.or("min_clients", default.min_clients, |node| node.integer(1..=MOST_CLIENTS));
    let watched = |key, default| table.or(key, default, watched);
    let connect_timeout = watched("connect_timeout", default.connect_timeout);
    let response_timeout = watched("response_timeout", default.response_timeout);
    let success_responses = count("success_rate_min_responses", default.success_rate_min_responses);
    let success_backends = count("success_rate_min_backends", default.success_rate_min_backends);
    let factor = table.or("success_rate_stdev_factor", default.success_rate_stdev_factor, value::factor);
    let failure_percent = percent("failure_percentage_threshold", default.failure_percentage_threshold);
    let failure_responses =
        count("failure_percentage_min_responses", default.failure_percentage_min_responses);
    let failure_backends = count("failure_percentage_min_backends", default.failure_percentage_min_backends);
    let error_percent = percent("error_rate_threshold", default.error_rate_threshold);
    let error_window = window("error_rate_window", default.error_rate_window);
    let error_responses = count("error_rate_min_responses", default.error_rate_min_responses);
    let slow_threshold = span("slow_threshold", default.slow_threshold);
    let slow_percent = percent("slow_rate_threshold", default.slow_rate_threshold);
    let slow_window = window("slow_rate_window", default.slow_rate_window);
    let slow_responses = count("slow_rate_min_responses", default.slow_rate_min_responses);
    let errors = table.or("errors", default.errors, |node| value::statuses(node, "errors = [\"500-599\"]"));
    let interval = table.or("interval", default.interval, |node| value::duration(node, LEAST_INTERVAL));
    let base = table.or("base_ejection_time", default.base_ejection_time, positive);
    let max = read_max_ejection_time(&table, base.as_ref());
    let jitter = span("max_ejection_time_jitter", default.max_ejection_time_jitter);
    let always_eject_one = table.or("always_eject_one", default.always_eject_one, Node::boolean);
    let ceiling = percent("max_ejection_percent", default.max_ejection_percent);
    if let (Some(ceiling), Some(one)) = (&ceiling, &always_eject_one) {
        warn_of_ceiling(&table, ceiling.value, one.value, backends);
    }
    let min_serving = table.or("min_serving", default.min_serving, |node| min_serving(node, backends));
    let trials = count("half_open_trials", default.half_open_trials);
    let successes = read_half_open_successes(&table, trials.as_ref());
    let half_open_timeout = match table.node("half_open_timeout") {
        Some(node) => value::duration(node, LEAST_INTERVAL),
        None => interval.as_ref().map(|interval| interval.value),
    };
    let half_open_exit = table.or("half_open_exit", default.half_open_exit, |node| {
        value::choice(node, &[("close", HalfOpenExit::Close), ("wait", HalfOpenExit::Wait)])
    });
    let probe_readmits = table.or("probe_readmits", default.probe_readmits, Node::boolean);
    let probe_uneject = table.or("probe_uneject", default.probe_uneject, Node::boolean);
    let slow_start = span("slow_start", default.slow_start);
    let panic_threshold = percent("panic_threshold", default.panic_threshold);
    let backoff_decay = table.or("backoff_decay", default.backoff_decay, |node| {
        value::choice(node, &[("evidence", BackoffDecay::Evidence), ("time", BackoffDecay::Time)])
    });

    Some(Breaker {
        enforce: enforce?.value,
        shadow: shadow?.value,
        consecutive_5xx: consecutive_5xx?.value,
        consecutive_gateway_failure: gateway?.value,
        split_l4_failures: split?.value,
        consecutive_l4_failure: l4?.value,
        confirm_l4_failures: confirm?.value,
        min_clients: clients?.value,
        connect_timeout: connect_timeout?.value,
        response_timeout: response_timeout?.value,
        success_rate_min_responses: success_responses?.value,
        success_rate_min_backends: success_backends?.value,
        success_rate_stdev_factor: factor?.value,
        failure_percentage_threshold: hundred(&failure_percent?),
        failure_percentage_min_responses: failure_responses?.value,
        failure_percentage_min_backends: failure_backends?.value,
        error_rate_threshold: hundred(&error_percent?),
        error_rate_window: error_window?.value,
        error_rate_min_responses: error_responses?.value,
        slow_threshold: slow_threshold?.value,
        slow_rate_threshold: hundred(&slow_percent?),
        slow_rate_window: slow_window?.value,
        slow_rate_min_responses: slow_responses?.value,
        errors: errors?.value,
        interval: interval?.value,
        base_ejection_time: base?.value,
        max_ejection_time: max?,
        max_ejection_time_jitter: jitter?.value,
        max_ejection_percent: hundred(&ceiling?),
        always_eject_one: always_eject_one?.value,
        min_serving: min_serving?.value,
        half_open_trials: trials?.value,
        half_open_successes: successes?,
        half_open_timeout: half_open_timeout?,
        half_open_exit: half_open_exit?.value,
        probe_readmits: probe_readmits?.value,
        probe_uneject: probe_uneject?.value,
        slow_start: slow_start?.value,
        panic_threshold: hundred(&panic_threshold?),
        backoff_decay: backoff_decay?.value,
    })
}

/// Names of detectors, each once.
fn shadow(node: &Node<'_>) -> Option<BTreeSet<Detector>> {
    const EXAMPLE: &str = "shadow = [\"success_rate\"]";
    let choices = Detector::ALL.map(|detector| (detector.name(), detector));
    let detector = |item: &Node<'_>| match item.as_str() {
        Some(_) => value::choice(item, &choices),
        None => item.expected("the name of a detector", EXAMPLE),
    };
    let items = node.items("an array of detectors", EXAMPLE)?;
    // Not `collect` into an Option: it would stop at the first that is wrong.
    let detectors: Vec<_> = items.iter().map(detector).collect();
    detectors.into_iter().collect()
}

fn hundred(percent: &Placed<u32>) -> u8 {
    u8::try_from(percent.value).expect("read as at most 100")
}

/// The program measures these times with a clock of 32 bits of microseconds.
fn watched(node: &Node<'_>) -> Option<Millis> {
    match value::duration(node, Millis(0))? {
        span if span > LONGEST_WATCHED => node.reject(
            format!("Shunt cannot wait longer than {}", value::shown(LONGEST_WATCHED)),
            format!("write at most `\"{}\"`, or `\"0s\"` for no limit", value::shown(LONGEST_WATCHED)),
        ),
        span => Some(span),
    }
}

fn positive(node: &Node<'_>) -> Option<Millis> {
    value::duration(node, Millis(1))
}

fn read_max_ejection_time(table: &Table<'_>, base: Option<&Placed<Millis>>) -> Option<Millis> {
    let Some(node) = table.node("max_ejection_time") else {
        return base.map(|base| LEAST_MAX_EJECTION_TIME.max(base.value));
    };
    let max = positive(node)?;
    match base {
        Some(base) if max < base.value => node.conflict(
            format!("the longest ejection is below `base_ejection_time`, {}", value::shown(base.value)),
            "raise `max_ejection_time` or lower `base_ejection_time`",
            base.span.clone(),
            "the base",
        ),
        Some(_) | None => Some(max),
    }
}

/// `backends`: how many the service has. If they could not be read, they are very many.
fn warn_of_ceiling(table: &Table<'_>, ceiling: u32, always_eject_one: bool, backends: usize) {
    let Some(node) = table.node("max_ejection_percent") else { return };
    let backends = backends as u64;
    if ceiling == 0 || always_eject_one || u64::from(ceiling).saturating_mul(backends) >= 100 {
        return;
    }
    node.warn(
        Code::NeverEjects,
        format!("{ceiling} % of {backends} backends are less than one, so none is ever ejected"),
        format!("write at least {}, or `always_eject_one = true`", 100u64.div_ceil(backends)),
    );
}

fn min_serving(node: &Node<'_>, backends: usize) -> Option<u32> {
    let least = node.integer(0..=MOST)?;
    if usize::try_from(least).is_ok_and(|least| least <= backends) {
        if least > 0 && least as usize == backends {
            node.warn(
                Code::NeverEjects,
                format!(
                    "the service has {backends} backends and {least} must serve, so none is ever ejected"
                ),
                "write a lower number, or add backends",
            );
        }
        return Some(least);
    }
    let s = if backends == 1 { "" } else { "s" };
    node.reject(
        format!("{least} must serve, but the service has {backends} backend{s}"),
        format!("write at most {backends}, or add backends"),
    )
}

fn read_half_open_successes(table: &Table<'_>, trials: Option<&Placed<u32>>) -> Option<u32> {
    let Some(node) = table.node("half_open_successes") else { return trials.map(|trials| trials.value) };
    let successes = node.integer(0..=MOST)?;
    match trials {
        Some(trials) if trials.value > 0 && successes == 0 => node.reject(
            "a half-open backend would be readmitted without one good response",
            "write at least 1, or turn half-open off by `half_open_trials = 0`",
        ),
        Some(_) | None => Some(successes),
    }
}
