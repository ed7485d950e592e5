//! What Prometheus is told. `docs/server.md` has the table of all metrics; a test holds it to this list.

use crate::activity::Activity;
use crate::live::Sessions;
use crate::packs::Packs;
use crate::queue::Load;
use prometheus::{CounterVec, core::Collector};
use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};
use std::sync::{Mutex, PoisonError};

/// Seconds of what is quick, and of jobs.
const QUICK: &[f64] = &[0.001, 0.005, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 60.0, 300.0];
const SLOW: &[f64] = &[0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];

/// The metrics.
pub struct Metrics {
    registry: Registry,
    /// Requests, by route, method and status.
    pub requests: IntCounterVec,
    /// Seconds until a response begins, by route.
    pub request_seconds: HistogramVec,
    /// Connections that are open.
    pub connections: IntGauge,
    /// Connections that were closed at once, because there were too many.
    pub connections_refused: IntCounter,
    /// Requests with a wrong token or none.
    pub unauthorized: IntCounter,
    /// Jobs that were taken, by kind.
    pub jobs_accepted: IntCounterVec,
    /// Jobs that were not taken, by reason.
    pub jobs_refused: IntCounterVec,
    /// Jobs that are over, by kind and outcome.
    pub jobs_finished: IntCounterVec,
    /// Seconds that jobs waited.
    pub job_wait: Histogram,
    /// Seconds that jobs took.
    pub job_run: Histogram,
    /// Pictures that were drawn.
    pub pictures: IntCounter,
    /// Tokens that were said.
    pub tokens: IntCounter,
    /// Frames of live streams, by outcome.
    pub live_frames: IntCounterVec,
    /// Seconds from a frame's arrival to its picture.
    pub live_latency: Histogram,
    /// Live sessions, by state.
    pub live_sessions: IntGaugeVec,
    jobs: IntGaugeVec,
    jobs_limit: IntGauge,
    core_busy: CounterVec,
    core_modelled: CounterVec,
    core_runs: IntCounterVec,
    packs: IntGauge,
    pack_loads: IntCounter,
    pack_drops: IntCounter,
    device_memory: IntGauge,
    device_memory_limit: IntGauge,
    resident: Gauge,
    info: GaugeVec,
    reading: Mutex<()>,
}

/// What metrics are read from when they are asked for.
pub struct Readings<'a> {
    /// The queue.
    pub load: Load,
    /// The cores.
    pub activity: &'a Activity,
    /// The packs.
    pub packs: &'a Packs,
    /// The live sessions.
    pub live: &'a Sessions,
}

/// Names are fixed, so that making a metric fails only through a mistake in this file, which every test would meet.
const VALID: &str = "the metrics' names are valid and differ";

fn added<C: Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<C>) -> C {
    let metric = metric.expect(VALID);
    registry.register(Box::new(metric.clone())).expect(VALID);
    metric
}

impl Default for Metrics {
    fn default() -> Self {
        let registry = Registry::new();
        let r = &registry;
        let counters = |name: &str, help: &str, labels: &[&str]| {
            added(r, IntCounterVec::new(Opts::new(name, help), labels))
        };
        let seconds = |name: &str, help: &str, labels: &[&str]| {
            added(r, CounterVec::new(Opts::new(name, help), labels))
        };
        let counter = |name: &str, help: &str| added(r, IntCounter::new(name, help));
        let gauge = |name: &str, help: &str| added(r, IntGauge::new(name, help));
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            added(r, IntGaugeVec::new(Opts::new(name, help), labels))
        };
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            added(r, Histogram::with_opts(options))
        };
        let request_seconds = HistogramOpts::new(
            "rockshard_http_response_seconds",
            "Seconds from a request's head to its response's, by route.",
        );
        let request_seconds = request_seconds.buckets(QUICK.to_vec());
        let metrics = Metrics {
            requests: counters(
                "rockshard_http_requests_total",
                "Requests, by route, method and status.",
                &["route", "method", "status"],
            ),
            request_seconds: added(r, HistogramVec::new(request_seconds, &["route"])),
            connections: gauge("rockshard_http_connections", "Connections that are open."),
            connections_refused: counter(
                "rockshard_http_connections_refused_total",
                "Connections that were closed at once, because too many were open.",
            ),
            unauthorized: counter(
                "rockshard_http_unauthorized_total",
                "Requests with a wrong token, or without one.",
            ),
            jobs_accepted: counters(
                "rockshard_jobs_accepted_total",
                "Jobs that were taken, by kind.",
                &["kind"],
            ),
            jobs_refused: counters(
                "rockshard_jobs_refused_total",
                "Jobs that were not taken, by reason.",
                &["reason"],
            ),
            jobs_finished: counters(
                "rockshard_jobs_finished_total",
                "Jobs that are over, by kind and outcome.",
                &["kind", "outcome"],
            ),
            job_wait: histogram(
                "rockshard_job_wait_seconds",
                "Seconds that jobs waited before they were begun.",
                SLOW,
            ),
            job_run: histogram(
                "rockshard_job_run_seconds",
                "Seconds that jobs took once they were begun.",
                SLOW,
            ),
            pictures: counter("rockshard_pictures_total", "Pictures that were drawn by jobs."),
            tokens: counter("rockshard_tokens_total", "Tokens that were said by jobs."),
            live_frames: counters(
                "rockshard_live_frames_total",
                "Frames of live streams, by what became of them.",
                &["outcome"],
            ),
            live_latency: histogram(
                "rockshard_live_latency_seconds",
                "Seconds from a live frame's arrival to its picture.",
                QUICK,
            ),
            live_sessions: gauges(
                "rockshard_live_sessions",
                "Live sessions, by state.",
                &["state"],
            ),
            jobs: gauges("rockshard_jobs", "Jobs now, by state.", &["state"]),
            jobs_limit: gauge("rockshard_jobs_waiting_limit", "Jobs that may wait."),
            core_busy: seconds(
                "rockshard_core_busy_seconds_total",
                "Seconds in which a core of the device was busy, measured on this machine.",
                &["core"],
            ),
            core_modelled: seconds(
                "rockshard_core_modelled_busy_seconds_total",
                "The same as the RK3588 would take, modelled; 0 on a device that models nothing.",
                &["core"],
            ),
            core_runs: counters(
                "rockshard_core_shard_runs_total",
                "Runs of shards on a core.",
                &["core"],
            ),
            packs: gauge("rockshard_models_loaded", "Models that are loaded now."),
            pack_loads: counter("rockshard_model_loads_total", "Models that were loaded."),
            pack_drops: counter(
                "rockshard_model_drops_total",
                "Models that were dropped to make room for others.",
            ),
            device_memory: gauge(
                "rockshard_device_memory_bytes",
                "Device memory that the loaded models take when all are open, modelled.",
            ),
            device_memory_limit: gauge(
                "rockshard_device_memory_limit_bytes",
                "Most device memory that models may take; 0 is no limit.",
            ),
            resident: added(
                r,
                Gauge::new("process_resident_memory_bytes", "Resident memory size in bytes."),
            ),
            info: added(
                r,
                GaugeVec::new(
                    Opts::new("rockshard_build_info", "The version that runs; always 1."),
                    &["version"],
                ),
            ),
            reading: Mutex::default(),
            registry: registry.clone(),
        };
        metrics.info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1.0);
        metrics.begin_at_zero();
        metrics
    }
}

impl Metrics {
    /// Series that are there before anything has happened, so that rates begin with 0.
    fn begin_at_zero(&self) {
        for kind in ["draw", "describe"] {
            self.jobs_accepted.with_label_values(&[kind]);
            for outcome in ["done", "refused", "cancelled", "too_late", "failed"] {
                self.jobs_finished.with_label_values(&[kind, outcome]);
            }
        }
        for reason in ["queue_full", "client_full", "draining"] {
            self.jobs_refused.with_label_values(&[reason]);
        }
        for outcome in ["drawn", "dropped", "skipped", "failed"] {
            self.live_frames.with_label_values(&[outcome]);
        }
        for state in ["active", "waiting", "away"] {
            self.live_sessions.with_label_values(&[state]);
        }
    }

    /// All metrics in Prometheus' text format.
    pub fn text(&self, readings: &Readings) -> String {
        let Readings { load, activity, packs, live } = readings;
        // Two at a time would both add what has come since the last one.
        let _alone = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let (active, waiting) = live.counts();
        for (state, count) in [("active", active), ("waiting", waiting), ("away", live.away())] {
            self.live_sessions.with_label_values(&[state]).set(count as i64);
        }
        self.jobs.with_label_values(&["waiting"]).set(load.waiting as i64);
        self.jobs.with_label_values(&["running"]).set(load.running as i64);
        self.jobs_limit.set(load.limit as i64);
        for core in activity.now().0 {
            let number = core.core.to_string();
            let up_to = |counter: &prometheus::Counter, value: f64| {
                counter.inc_by((value - counter.get()).max(0.0));
            };
            up_to(&self.core_busy.with_label_values(&[&number]), core.busy_s);
            up_to(&self.core_modelled.with_label_values(&[&number]), core.modelled_s);
            let runs = self.core_runs.with_label_values(&[&number]);
            runs.inc_by(core.runs.saturating_sub(runs.get()));
        }
        let (models, bytes) = packs.resident();
        self.packs.set(models as i64);
        let [loads, drops] = packs.counts();
        self.pack_loads.inc_by(loads.saturating_sub(self.pack_loads.get()));
        self.pack_drops.inc_by(drops.saturating_sub(self.pack_drops.get()));
        self.device_memory.set(bytes as i64);
        let limit = packs.cores().options().memory_limit;
        self.device_memory_limit.set(limit.unwrap_or(0) as i64);
        self.resident.set(resident_bytes() as f64);
        let mut text = Vec::new();
        // Writing to memory does not fail.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        String::from_utf8(text).unwrap_or_default()
    }
}

/// Resident memory of this process, where the system tells (Linux).
fn resident_bytes() -> u64 {
    const PAGE: u64 = 4096;
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|n| n.parse::<u64>().ok());
    pages.unwrap_or(0) * PAGE
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// The first column of the table under the heading, without its marks.
    fn documented() -> BTreeSet<String> {
        let page = include_str!("../../../docs/server.md");
        let table = page.split("## Metrics").nth(1).unwrap_or_default();
        let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
        rows.filter_map(|row| Some(row.split('`').next()?.to_owned())).collect()
    }

    #[test]
    fn every_metric_is_in_the_document() {
        let metrics = Metrics::default();
        // Families without a series yet are told of by describing themselves.
        metrics.requests.with_label_values(&["/", "GET", "200"]);
        metrics.request_seconds.with_label_values(&["/"]);
        metrics.jobs.with_label_values(&["waiting"]);
        for family in [&metrics.core_busy, &metrics.core_modelled] {
            family.with_label_values(&["0"]);
        }
        metrics.core_runs.with_label_values(&["0"]);
        let families = metrics.registry.gather();
        let known: BTreeSet<String> = families.iter().map(|f| f.name().to_owned()).collect();
        assert_eq!(known, documented());
    }
}
