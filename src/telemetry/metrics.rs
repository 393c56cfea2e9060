//! Numbers for Prometheus: what a metric is, and how all of them become one page.
//!
//! Each room defines its metrics beside the code that it measures, as [`Metric`]s: name, kind, labels and what it means
//! belong together, and `docs/metrics.md` holds the same list for people. Labels take few values: those of an enum, of
//! the routes, or names that the project defines. What clients choose is no label.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

const UPKEEP: Duration = Duration::from_secs(5);

/// Something that is counted or measured.
#[derive(Debug)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

#[derive(Debug)]
pub enum Kind {
    Counter,
    Gauge,
    /// With the upper bounds of its buckets.
    Histogram(&'static [f64]),
}

/// Bounds for what takes a moment: a write, a request.
pub const SHORT: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// Bounds for what may take a while: an attempt, a run, a wait.
pub const LONG: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0, 21_600.0,
    86_400.0,
];
/// Bounds for memory, from 4 MiB to 1 GiB.
pub const BYTES: &[f64] = &[
    4_194_304.0,
    8_388_608.0,
    16_777_216.0,
    33_554_432.0,
    67_108_864.0,
    134_217_728.0,
    268_435_456.0,
    536_870_912.0,
    1_073_741_824.0,
];

const BUILD: &str = "fnhost_build_info";
const UPTIME: &str = "fnhost_uptime_seconds";
const STARTED: &str = "process_start_time_seconds";
const RESIDENT: &str = "process_resident_memory_bytes";

/// What the process tells of itself.
pub const PROCESS: &[Metric] = &[
    Metric { name: BUILD, kind: Kind::Gauge, labels: &["version"], help: "Always 1; which version this is" },
    Metric { name: UPTIME, kind: Kind::Gauge, labels: &[], help: "Seconds since the server was started" },
    Metric {
        name: STARTED,
        kind: Kind::Gauge,
        labels: &[],
        help: "When the server was started, in seconds since 1970",
    },
    Metric { name: RESIDENT, kind: Kind::Gauge, labels: &[], help: "Memory of the process that is in RAM, in bytes" },
];

struct Page {
    handle: PrometheusHandle,
    started: Instant,
}

static PAGE: OnceLock<Page> = OnceLock::new();

/// Starts to count. What is measured before this, or without it, is not kept.
pub fn install(rooms: &[&[Metric]]) -> Result<(), String> {
    let mut builder = PrometheusBuilder::new();
    for metric in rooms.iter().copied().flatten() {
        if let Kind::Histogram(bounds) = metric.kind {
            let name = Matcher::Full(metric.name.to_owned());
            builder = builder.set_buckets_for_metric(name, bounds).map_err(|error| error.to_string())?;
        }
    }
    let handle = builder.install_recorder().map_err(|error| error.to_string())?;
    rooms.iter().copied().flatten().for_each(describe);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    gauge!(STARTED).set(now);
    gauge!(BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1);
    let _ = PAGE.set(Page { handle, started: Instant::now() });
    Ok(())
}

fn describe(metric: &Metric) {
    match metric.kind {
        Kind::Counter => {
            describe_counter!(metric.name, metric.help);
            // A counter that appears only once it is 1 has no rate at that moment.
            if metric.labels.is_empty() {
                counter!(metric.name).absolute(0);
            }
        }
        Kind::Gauge => describe_gauge!(metric.name, metric.help),
        Kind::Histogram(_) => describe_histogram!(metric.name, metric.help),
    }
}

/// Everything that is measured, in Prometheus' text format.
pub fn render() -> String {
    let Some(page) = PAGE.get() else { return String::new() };
    gauge!(UPTIME).set(page.started.elapsed());
    if let Some(resident) = resident_bytes() {
        gauge!(RESIDENT).set(resident as f64);
    }
    page.handle.render()
}

/// Sorts in what was measured, now and again: samples of histograms take memory until then.
pub async fn keep_tidy() {
    loop {
        tokio::time::sleep(UPKEEP).await;
        if let Some(page) = PAGE.get() {
            page.handle.run_upkeep();
        }
    }
}

/// The process's resident set, where the system tells it.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}
