//! `/metrics`: what it says, whom it says it to, and that the page about it says the same.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::server::{Server, Setup};

/// A workflow that succeeds, one that fails, and one on a topic of its own.
const PROJECT: &str = "
jobs:
  keep: { adaptor: common, trigger: keeping, expression: fn(state => state) }
  refuse:
    adaptor: common
    trigger: refusal
    expression: fn(() => { throw new Error('no room') })
    retry: { max_attempts: 1 }
triggers:
  keeping: { criteria: { form: keep } }
  refusal: { criteria: { form: refuse } }
  lab: { criteria: {}, topic: lab }
";

/// A metric as a page of Prometheus, or the page in `docs`, tells of it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Family {
    kind: String,
    help: String,
    labels: BTreeSet<String>,
}

/// What a page in Prometheus' format says: families, and the value of each series.
struct Page {
    families: BTreeMap<String, Family>,
    series: BTreeMap<String, f64>,
}

impl Page {
    fn read(server: &Server) -> Self {
        Self::parse(&server.read("/metrics").expect(200).text())
    }

    fn parse(text: &str) -> Self {
        let mut page = Self { families: BTreeMap::new(), series: BTreeMap::new() };
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').unwrap();
                page.families.entry(name.into()).or_default().help = help.into();
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                page.families.entry(name.into()).or_default().kind = kind.into();
            } else {
                page.add(line);
            }
        }
        page
    }

    fn add(&mut self, line: &str) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        self.series.insert(series.into(), value.parse().unwrap());
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let stems = ["_bucket", "_sum", "_count"].map(|suffix| name.strip_suffix(suffix));
        let name = stems.into_iter().flatten().find(|stem| self.families.contains_key(*stem)).unwrap_or(name);
        let labels = labels.trim_end_matches('}').split(',').filter_map(|label| label.split_once('='));
        let labels = labels.map(|(label, _)| label.to_owned()).filter(|label| label != "le");
        self.families.get_mut(name).unwrap_or_else(|| panic!("{name} has no type")).labels.extend(labels);
    }

    /// The sum over all series of a name with these labels.
    fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let labels: Vec<String> = labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        let fits = |series: &str| {
            series.split('{').next() == Some(name) && labels.iter().all(|label| series.contains(label.as_str()))
        };
        self.series.iter().filter(|(series, _)| fits(series)).map(|(_, value)| value).sum()
    }
}

/// The tables of the page about metrics.
fn documented() -> BTreeMap<String, Family> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
    let text = std::fs::read_to_string(path).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |"));
    rows.map(|row| {
        let [name, kind, labels, help] = row.split('|').map(str::trim).collect::<Vec<_>>()[..] else {
            panic!("a row of another table: {row}");
        };
        let labels = labels.split_whitespace().map(|label| label.trim_matches('`').to_owned()).collect();
        (name.trim_matches('`').to_owned(), Family { kind: kind.into(), help: help.into(), labels })
    })
    .collect()
}

/// A server that has had something to do of every kind.
fn busy() -> Server {
    let server = Setup::new(PROJECT).start();
    for _ in 0..2 {
        let request = server.request("POST", "/inbox?wait=60s").header("idempotency-key", "one");
        assert!(request.json(&json!({ "form": "keep" })).send().status < 300);
    }
    server.post("/inbox?wait=60s", &json!({ "form": "refuse" })).expect(206);
    server.post("/inbox/nobody-listens-here", &json!({})).expect(202);
    server.request("POST", "/inbox").body("application/json", "{").send().expect(400);
    server.get("/nothing/1234").expect(404);
    server
}

#[test]
fn the_page_about_metrics_says_what_the_server_says() {
    let server = busy();
    assert_eq!(Page::read(&server).families, documented());
}

#[test]
fn what_happened_is_counted() {
    let server = busy();
    let page = Page::read(&server);
    for (expected, name, labels) in [
        (1.0, "fnhost_messages_received_total", &[("topic", "inbox"), ("duplicate", "true")][..]),
        (2.0, "fnhost_messages_received_total", &[("topic", "inbox"), ("duplicate", "false")]),
        (1.0, "fnhost_messages_received_total", &[("topic", "other"), ("duplicate", "false")]),
        (1.0, "fnhost_messages_refused_total", &[("reason", "malformed")]),
        (4.0, "fnhost_ingest_duration_seconds_count", &[]),
        (1.0, "fnhost_runs_total", &[("workflow", "keep"), ("state", "completed")]),
        (1.0, "fnhost_runs_total", &[("workflow", "refuse"), ("state", "failed")]),
        (1.0, "fnhost_attempts_total", &[("workflow", "refuse"), ("outcome", "failure"), ("task", "dead")]),
        (2.0, "fnhost_attempt_duration_seconds_count", &[]),
        (2.0, "fnhost_isolate_runs_total", &[]),
        (2.0, "fnhost_isolate_heap_bytes_count", &[]),
        (1.0, "fnhost_queue_tasks", &[("workflow", "refuse"), ("state", "dead")]),
        (0.0, "fnhost_queue_tasks", &[("workflow", "keep")]),
        (1.0, "fnhost_http_requests_total", &[("route", "none"), ("method", "GET"), ("status", "404")]),
        (1.0, "fnhost_http_requests_total", &[("route", "/inbox/{topic}"), ("method", "POST")]),
        (0.0, "fnhost_store_errors_total", &[]),
        (1.0, "fnhost_build_info", &[("version", env!("CARGO_PKG_VERSION"))]),
    ] {
        assert_eq!(page.sum(name, labels), expected, "{name} {labels:?}");
    }
    for name in ["process_resident_memory_bytes", "fnhost_store_bytes", "fnhost_store_commit_duration_seconds_count"] {
        assert!(page.sum(name, &[]) > 0.0, "{name}");
    }
}

#[test]
fn what_clients_choose_is_in_no_label() {
    let server = busy();
    server.request("BREW", "/coffee").send();
    let text = server.read("/metrics").expect(200).text();
    for chosen in ["nobody-listens-here", "1234", "BREW", "coffee"] {
        assert!(!text.contains(chosen), "{chosen}");
    }
}

#[test]
fn a_token_is_asked_for_unless_metrics_are_open() {
    let setup = Setup::new(PROJECT);
    let [metrics, read] = ["metrics", "read"].map(|scope| {
        let output = setup.command(&["token", "create", scope, "--scope", scope]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    });
    let server = setup.start();
    let get =
        |token: &str| server.request("GET", "/metrics").header("authorization", &format!("Bearer {token}")).send();
    let answer = get(&metrics).expect(200);
    assert!(answer.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    get(&read).expect(403);
    server.get("/metrics").expect(401);

    Setup::new(PROJECT).args(&["--open-metrics"]).start().get("/metrics").expect(200);
}
