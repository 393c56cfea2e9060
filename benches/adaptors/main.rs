//! What packages from npm do in fnhost: writes `docs/adaptors.md`. Run it with `scripts/adaptors-report`.
//!
//! Every file of `cases` is a job on one package. It uses the package for real, where possible against a server that
//! this program starts, and throws if anything is not as it should be. Comments at its head say what the table says:
//!
//! ```text
//! // package: what to install, as for `fnhost install`
//! // behind: the adaptors that use it
//! // credential: the server that alone is its `state.configuration`; without it, all of them
//! // does: what the job does with it
//! // only loads: why it is not used for real
//! ```
//!
//! Each case is installed into a store of its own and run three times by the program: file by file, through a new
//! pack, and through that pack as it lies on disk. Then a second process, this program again with `--measure`, sees
//! what loading the package costs in a fresh isolate.

#[allow(dead_code)] // shared with the tests, which use more of it
#[path = "../../tests/integration/support/http_server.rs"]
mod http_server;
#[path = "../../tests/integration/support/mariadb.rs"]
mod mariadb;
mod peers;
mod soap;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use fnhost::compile::{self, Adaptor, Compiled, Dialect};
use fnhost::isolate::{Host, HostOptions, Job, Limits, MIB, Network, Outcome, platform};
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_fnhost");
const CHECKS: &str = include_str!("checks.js");
const LOCK: &str = include_str!("fnhost.lock");

/// Adaptors that are asked for beside the cases, to say which there are: those of the drivers below.
const ASKED_FOR: &[&str] = &["dhis2", "googlesheets", "postgresql", "redis", "salesforce", "sftp"];

/// Runs of a package whose cost is the median.
const RUNS: usize = 5;

fn main() {
    platform::init();
    let arguments: Vec<String> = std::env::args().collect();
    let following = |flag: &str| arguments.iter().position(|argument| argument == flag).map(|at| &arguments[at + 1..]);
    if let Some([store, specifier, ..]) = following("--measure") {
        println!("{}", measure(Path::new(store), specifier));
        return;
    }
    let only = following("--only").and_then(|rest| rest.first());
    let work = tempfile::tempdir().expect("a temporary directory");
    let peers = peers::Peers::start();
    let configuration = peers.configuration();

    let mut cases = Case::all();
    cases.retain(|case| only.is_none_or(|only| *only == case.name));
    let mut rows = Vec::new();
    for case in &cases {
        let row = case.examine(work.path(), &configuration);
        eprintln!("{:28} {} {}", case.name, row.verdict.word(), row.verdict.why().unwrap_or(""));
        rows.push(row);
    }
    let report = page(&rows, &refused_adaptors(work.path()), bare_isolate(work.path()));
    match following("--write").and_then(|rest| rest.first()) {
        Some(file) => {
            std::fs::write(file, report).expect("the page can be written");
            eprintln!("wrote {file}");
        }
        None => print!("{report}"),
    }
    if rows.iter().any(|row| matches!(row.verdict, Verdict::Fails(_))) {
        std::process::exit(1);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Cases
// ---------------------------------------------------------------------------------------------------------------------

struct Case {
    /// Of the file.
    name: String,
    source: String,
    package: String,
    behind: String,
    does: String,
    credential: Option<String>,
    only_loads: Option<String>,
}

enum Verdict {
    Works,
    OnlyLoads(String),
    Fails(String),
    NotInstallable(String),
}

impl Verdict {
    fn word(&self) -> &'static str {
        match self {
            Self::Works => "works",
            Self::OnlyLoads(_) => "loads only",
            Self::Fails(_) => "**fails**",
            Self::NotInstallable(_) => "not installable here",
        }
    }

    fn why(&self) -> Option<&str> {
        match self {
            Self::Works => None,
            Self::OnlyLoads(why) | Self::Fails(why) | Self::NotInstallable(why) => Some(why),
        }
    }
}

struct Row {
    name: String,
    version: String,
    behind: String,
    does: String,
    verdict: Verdict,
    /// What loading costs, if it loads.
    cost: Option<Value>,
    /// The adaptor is installed with versions that it does not ask for.
    relocked: bool,
}

impl Row {
    fn is_adaptor(&self) -> bool {
        self.name.starts_with("@openfn/")
    }
}

impl Case {
    /// In the order of the files' names.
    fn all() -> Vec<Self> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/adaptors/cases");
        let entries = std::fs::read_dir(directory).expect("the cases");
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("a case").path()).collect();
        files.sort();
        files.iter().map(|file| Self::read(file)).collect()
    }

    fn read(file: &Path) -> Self {
        let source = std::fs::read_to_string(file).expect("a case");
        let said = |key: &str| {
            let mut lines = source.lines().map_while(|line| line.strip_prefix("// "));
            lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(": ")).map(str::to_owned)
        };
        Self {
            name: file.file_stem().expect("a file's name").to_string_lossy().into_owned(),
            package: said("package").unwrap_or_else(|| panic!("{} does not name its package", file.display())),
            behind: said("behind").unwrap_or_default(),
            does: said("does").unwrap_or_else(|| panic!("{} does not say what it does", file.display())),
            credential: said("credential"),
            only_loads: said("only loads"),
            source,
        }
    }

    fn examine(&self, work: &Path, configuration: &Value) -> Row {
        let store = work.join(&self.name);
        std::fs::create_dir_all(&store).expect("a temporary directory");
        let mut row = Row {
            name: self.package.clone(),
            version: String::new(),
            behind: self.behind.clone(),
            does: self.does.clone(),
            verdict: Verdict::Works,
            cost: None,
            relocked: false,
        };
        let mut installed = install(&store, &self.package, false);
        if installed.is_err() && LOCK.contains(&self.package) {
            std::fs::write(store.join("fnhost.lock"), LOCK).expect("a lock");
            row.relocked = true;
            installed = install(&store, &self.package, true);
        }
        match installed {
            Ok((name, version)) => (row.name, row.version) = (name, version),
            Err(why) => {
                row.verdict = Verdict::NotInstallable(why);
                return row;
            }
        }
        row.verdict = match (self.run(&store, configuration), &self.only_loads) {
            (Err(why), _) => Verdict::Fails(why),
            (Ok(()), Some(why)) => Verdict::OnlyLoads(why.clone()),
            (Ok(()), None) => Verdict::Works,
        };
        let measured = Command::new(std::env::current_exe().expect("this program"))
            .args(["--measure", text(&store), &row.name])
            .output()
            .expect("this program starts");
        row.cost = serde_json::from_slice(&measured.stdout).ok();
        row
    }

    /// Runs the job in every way there is; the error of the first that fails.
    fn run(&self, store: &Path, configuration: &Value) -> Result<(), String> {
        let configuration = self.credential.as_ref().map_or(configuration, |server| &configuration[server]);
        let credential = store.join("credential.json");
        std::fs::write(&credential, configuration.to_string()).expect("a temporary file");
        let job = store.join("job.js");
        std::fs::write(&job, format!("{}\n{CHECKS}", self.source)).expect("a temporary file");
        for (way, packs) in [("file by file", "off"), ("in a new pack", "on"), ("in a pack from disk", "on")] {
            let mut command = Command::new(PROGRAM);
            command.args(["run", text(&job), "-a", &self.package, "-c", text(&credential), "--log-json"]);
            command.args(["--repo-dir", text(store), "--timeout", "60s"]).env("FNHOST_PACKS", packs);
            let output = command.output().expect("the program starts");
            if !output.status.success() {
                return Err(format!("{way}: {}", error_in(&output)));
            }
        }
        Ok(())
    }
}

/// Name and version of what was installed, or the first line of the error.
fn install(store: &Path, package: &str, frozen: bool) -> Result<(String, String), String> {
    let mut command = Command::new(PROGRAM);
    command.args(["install", package, "--json", "--repo-dir", text(store), "--dir", text(store)]);
    if frozen {
        command.arg("--frozen");
    }
    let output = command.output().expect("the program starts");
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        let error = message.lines().find_map(|line| line.strip_prefix("error: "));
        return Err(error.unwrap_or("fnhost install failed").to_owned());
    }
    let report: Value = serde_json::from_slice(&output.stdout).expect("a report in JSON");
    let field = |name: &str| report["adaptors"][0][name].as_str().unwrap_or_default().to_owned();
    Ok((field("name"), field("version")))
}

/// The first line of what a run died of.
fn error_in(output: &Output) -> String {
    let log = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let of_run = lines.iter().find_map(|line| line["error"]["message"].as_str());
    let said = lines.iter().filter(|line| line["level"] == "error").find_map(|line| match &line["message"] {
        Value::Array(parts) => parts.first()?.as_str(),
        message => message.as_str(),
    });
    let message = of_run.or(said).map_or_else(|| format!("{}", output.status), str::to_owned);
    message.lines().next().unwrap_or_default().to_owned()
}

/// Adaptors that the registry does not have, and why, or that they are there after all.
fn refused_adaptors(work: &Path) -> Vec<(String, String)> {
    let ask = |name: &&str| {
        let package = format!("@openfn/language-{name}");
        let answer = match install(&work.join("asked-for").join(name), &package, false) {
            Ok((_, version)) => format!("version {version} is there, and has no case yet"),
            Err(why) if why.starts_with("there is no package") => "the registry answered 404".into(),
            Err(why) => why,
        };
        (package, answer)
    };
    ASKED_FOR.iter().map(ask).collect()
}

// ---------------------------------------------------------------------------------------------------------------------
// Costs
// ---------------------------------------------------------------------------------------------------------------------

/// Loads all of a package in fresh isolates, and nothing else.
fn measure(store: &Path, specifier: &str) -> Value {
    let host = |without_packs| Host::new(HostOptions { store: store.to_owned(), without_packs, ..Default::default() });
    let specifiers = [specifier.to_owned()];
    // What the first run compiles, the others take from the code cache.
    let packed = host(false);
    let Ok(set) = packed.prepare(&specifiers) else { return Value::Null };
    load(&packed, &specifiers);
    packed.save_packs();
    let packed = host(false);
    let (cpu, heap) = median(|| load(&packed, &specifiers));
    let unpacked = host(true);
    load(&unpacked, &specifiers);
    let (unpacked_cpu, unpacked_heap) = median(|| load(&unpacked, &specifiers));
    json!({
        "cpu": cpu,
        "heap": heap,
        "unpacked_cpu": unpacked_cpu,
        "unpacked_heap": unpacked_heap,
        "unpacked": set.unpacked,
    })
}

/// CPU milliseconds and heap megabytes of a bare isolate.
fn bare_isolate(work: &Path) -> (f64, f64) {
    let host = Host::new(HostOptions { store: work.to_owned(), ..Default::default() });
    load(&host, &[]);
    median(|| load(&host, &[]))
}

fn median(mut run: impl FnMut() -> Outcome) -> (f64, f64) {
    let stats: Vec<_> = (0..RUNS).map(|_| run().stats).collect();
    let middle = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let cpu = stats.iter().map(|stats| stats.cpu.as_secs_f64() * 1000.0).collect();
    let heap = stats.iter().map(|stats| stats.heap as f64 / MIB as f64).collect();
    (middle(cpu), middle(heap))
}

/// One run that imports a package whole.
fn load(host: &Host, specifiers: &[String]) -> Outcome {
    let imports: String = specifiers.iter().map(|specifier| format!("import * as all from {specifier:?};")).collect();
    let names = if specifiers.is_empty() { "0" } else { "Object.keys(all).length" };
    let source = format!("{imports}\nexport default [() => ({{ names: {names} }})];\n");
    let job = Job {
        name: "load.js".into(),
        step: "load".into(),
        compiled: Arc::new(compiled(&source, specifiers)),
        source: source.into(),
        adaptors: specifiers.to_vec(),
        limits: Limits::default(),
        network: Network::Open,
        remove_from_state: Vec::new(),
        traceparent: None,
        test: false,
        hide: None,
    };
    host.run(job, "{}".into(), Box::new(|_| {}))
}

fn compiled(source: &str, specifiers: &[String]) -> Compiled {
    let adaptors: Vec<_> = specifiers.iter().map(|specifier| Adaptor { specifier, exports: None }).collect();
    let options =
        compile::Options { file_name: "load.js", adaptors: &adaptors, dialect: Dialect::Module, extra_globals: &[] };
    compile::compile(source, &options).expect("a job that compiles")
}

// ---------------------------------------------------------------------------------------------------------------------
// The page
// ---------------------------------------------------------------------------------------------------------------------

const HEAD: &str = "\
# Adaptors

What OpenFn's adaptors, and the packages from npm that other adaptors stand on, do in fnhost. Made by
`scripts/adaptors-report`; do not edit.

**works**: used for real, each time three ways: file by file, through a new pack, through that pack from disk. A
package with a server of its own kind was used against that server (MariaDB, PostgreSQL with TLS, Redis, OpenSSH, HTTP,
SOAP), on this machine. **loads only**: everything short of a server that cannot run here. **fails**: a test of it threw.

CPU is that of the whole life of a fresh isolate which loads all of the package and does nothing else, through its pack;
in brackets, file by file. A job that uses a part of an adaptor loads less. Heap is V8's after that.

";

fn page(rows: &[Row], refused: &[(String, String)], bare: (f64, f64)) -> String {
    let mut page = String::from(HEAD);
    let _ = writeln!(
        page,
        "{}. fnhost {}, on {}. A bare isolate: {:.0} ms CPU, {:.1} MB.\n",
        today(),
        env!("CARGO_PKG_VERSION"),
        machine(),
        bare.0,
        bare.1
    );
    let count = |word: &str| rows.iter().filter(|row| row.verdict.word() == word).count();
    let words = ["works", "loads only", "**fails**", "not installable here"];
    let counts: Vec<String> =
        words.iter().filter(|word| count(word) > 0).map(|word| format!("{} {word}", count(word))).collect();
    let _ = writeln!(page, "Of {} packages: {}.\n", rows.len(), counts.join(", "));

    page.push_str("## Adaptors\n\n");
    table(&mut page, rows.iter().filter(|row| row.is_adaptor()));
    if rows.iter().any(|row| row.relocked) {
        page.push_str(
            "\n¹ As published it cannot be installed here: it asks for a version of `@openfn/language-common` that this \
             registry does not have. It ran with the one in `benches/adaptors/fnhost.lock`.\n",
        );
    }
    page.push_str("\nAsked for, too:\n\n");
    for (package, answer) in refused {
        let _ = writeln!(page, "- `{package}`: not installable here ({answer})");
    }
    page.push_str("\n## Packages behind adaptors\n\n");
    table(&mut page, rows.iter().filter(|row| !row.is_adaptor()));
    page
}

fn table<'a>(page: &mut String, rows: impl Iterator<Item = &'a Row>) {
    page.push_str("| package | version | behind | result | what was done, or why not | CPU ms | heap MB | packed |\n");
    page.push_str("|---|---|---|---|---|--:|--:|---|\n");
    for row in rows {
        let done = match &row.verdict {
            Verdict::Works => row.does.clone(),
            Verdict::OnlyLoads(why) => format!("{}; {why}", row.does),
            Verdict::Fails(why) | Verdict::NotInstallable(why) => why.clone(),
        };
        let number = |key: &str| row.cost.as_ref().and_then(|cost| cost[key].as_f64());
        let cpu = match (number("cpu"), number("unpacked_cpu")) {
            (Some(packed), Some(unpacked)) => format!("{packed:.0} ({unpacked:.0})"),
            _ => String::new(),
        };
        let heap = number("heap").map_or(String::new(), |heap| format!("{heap:.1}"));
        let packed = match row.cost.as_ref().map(|cost| cost["unpacked"].as_str()) {
            None => "",
            Some(None) => "yes",
            Some(Some(why)) => why,
        };
        let mark = if row.relocked { "¹" } else { "" };
        let cells = [
            &format!("`{}`", row.name),
            &format!("{}{mark}", row.version),
            &row.behind,
            row.verdict.word(),
            &done,
            &cpu,
            &heap,
            packed,
        ];
        let _ = writeln!(page, "| {} |", cells.map(|cell| cell.replace('|', "\\|")).join(" | "));
    }
}

fn today() -> String {
    let date = Command::new("date").args(["--utc", "+%Y-%m-%d"]).output().expect("date is there");
    String::from_utf8_lossy(&date.stdout).trim().to_owned()
}

fn machine() -> String {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':').map(|(_, model)| model));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{}, {cores} cores", model.map_or("an unknown CPU", str::trim))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}
