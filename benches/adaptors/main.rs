//! What packages from npm do in fnhost: writes `docs/adaptors.md`. Run it with `scripts/adaptors-report`.
//!
//! Every file of `cases` is a job on one package. It uses the package for real, where possible against a server that
//! this program starts, and throws if anything is not as it should be. Comments at its head say what the table says:
//!
//! ```text
//! // package: what to install, as for `fnhost install`; several versions make several rows
//! // behind: the adaptors that use it; `behind 3` for those that use version 3
//! // credential: the server that alone is its `state.configuration`; without it, all of them
//! // does: what the job does with it
//! // answers: what a stand-in for its service answers, one line each; see `service`
//! // only loads: why it is not used for real
//! // fails: why, if that is known
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
mod service;
mod soap;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use fnhost::compile::{self, Adaptor, Compiled, Dialect};
use fnhost::isolate::{Host, HostOptions, Job, Limits, MIB, Network, Outcome, platform};
use serde_json::{Value, json};
use service::Answer;

const PROGRAM: &str = env!("CARGO_BIN_EXE_fnhost");
const CHECKS: &str = include_str!("checks.js");
const LOCK: &str = include_str!("fnhost.lock");

/// Packages without a case that the registry is asked for, to say whether it has them: adaptors that many use, and a
/// driver. The page asks for no others; it stands on the packages behind them instead.
const ASKED_FOR: &[&str] = &[
    "@openfn/language-commcare",
    "@openfn/language-dhis2",
    "@openfn/language-godata",
    "@openfn/language-googlesheets",
    "@openfn/language-kobotoolbox",
    "@openfn/language-odoo",
    "@openfn/language-postgresql",
    "@openfn/language-redis",
    "@openfn/language-salesforce",
    "@openfn/language-sftp",
    "npm:hive-driver@1.0.1",
];

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
    cases.retain(|case| only.is_none_or(|only| *only == case.file || *only == case.name));
    let mut rows = Vec::new();
    for case in &cases {
        let row = case.examine(work.path(), &configuration);
        eprintln!("{:28} {} {}", case.name, row.verdict.word(), row.verdict.why().unwrap_or_default());
        rows.push(row);
    }
    if let Some(file) = following("--write").and_then(|rest| rest.first()) {
        let report = page(&rows, &asked_for(work.path()), bare_isolate(work.path()));
        std::fs::write(file, report).expect("the page can be written");
        eprintln!("wrote {file}");
    }
    let unexplained = |row: &Row| matches!(&row.verdict, Verdict::Fails { known: None, .. });
    if rows.iter().any(unexplained) {
        std::process::exit(1);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Cases
// ---------------------------------------------------------------------------------------------------------------------

struct Case {
    /// Without its extension.
    file: String,
    /// That of the file, and the version if there are several.
    name: String,
    source: String,
    package: String,
    behind: String,
    does: String,
    credential: Option<String>,
    answers: Vec<Answer>,
    only_loads: Option<String>,
    fails: Option<String>,
}

enum Verdict {
    Works,
    OnlyLoads(String),
    Fails { error: String, known: Option<String> },
    NotInstallable(String),
}

impl Verdict {
    fn word(&self) -> &'static str {
        match self {
            Self::Works => "works",
            Self::OnlyLoads(_) => "loads only",
            Self::Fails { .. } => "**fails**",
            Self::NotInstallable(_) => "not installable here",
        }
    }

    fn why(&self) -> Option<String> {
        match self {
            Self::Works => None,
            Self::OnlyLoads(why) | Self::NotInstallable(why) => Some(why.clone()),
            Self::Fails { error, known: None } => Some(error.clone()),
            Self::Fails { error, known: Some(why) } => Some(format!("{why} ({error})")),
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
        files.iter().flat_map(|file| Self::read(file)).collect()
    }

    /// One for each version of the package.
    fn read(file: &Path) -> Vec<Self> {
        let source = std::fs::read_to_string(file).expect("a case");
        let said = |key: &str| {
            let key = format!("{key}: ");
            let head = source.lines().map_while(|line| line.strip_prefix("// "));
            head.filter_map(move |line| Some(line.strip_prefix(&key)?.to_owned()))
        };
        let must_say = |key| said(key).next().unwrap_or_else(|| panic!("{} does not say `{key}`", file.display()));
        let stem = file.file_stem().expect("a file's name").to_string_lossy();
        let packages = must_say("package");
        let several = packages.contains(' ');
        let case = |package: &str| {
            let version = package.rsplit_once('@').map_or("", |(_, version)| version);
            Self {
                file: stem.clone().into_owned(),
                name: if several { format!("{stem}@{version}") } else { stem.clone().into_owned() },
                package: package.to_owned(),
                behind: said("behind").chain(said(&format!("behind {version}"))).next().unwrap_or_default(),
                does: must_say("does"),
                credential: said("credential").next(),
                answers: said("answers").map(|line| Answer::read(&line)).collect(),
                only_loads: said("only loads").next(),
                fails: said("fails").next(),
                source: source.clone(),
            }
        };
        packages.split(' ').map(case).collect()
    }

    fn examine(&self, work: &Path, configuration: &Value) -> Row {
        let store = work.join(&self.name);
        std::fs::create_dir_all(&store).expect("a temporary directory");
        let mut row = Row {
            name: self.package.trim_start_matches("npm:").to_owned(),
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
            (Err(error), _) => Verdict::Fails { error, known: self.fails.clone() },
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
        let mut configuration = self.credential.as_ref().map_or(configuration, |server| &configuration[server]).clone();
        let credential = store.join("credential.json");
        let job = store.join("job.js");
        std::fs::write(&job, format!("{}\n{CHECKS}", self.source)).expect("a temporary file");
        for (way, packs) in [("file by file", "off"), ("in a new pack", "on"), ("in a pack from disk", "on")] {
            let service = service::serve(self.answers.clone());
            configuration["service"] = service.origin().into();
            std::fs::write(&credential, configuration.to_string()).expect("a temporary file");
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

/// What the registry answers when it is asked for each.
fn asked_for(work: &Path) -> Vec<(&'static str, String)> {
    let ask = |(index, package): (usize, &&'static str)| {
        let answer = match install(&work.join(format!("asked-for-{index}")), package, false) {
            Ok((_, version)) => format!("there, as version {version}, and without a case yet"),
            Err(why) if why.starts_with("there is no package") => "the registry answered 404".into(),
            Err(why) => why,
        };
        (package.trim_start_matches("npm:"), answer)
    };
    ASKED_FOR.iter().enumerate().map(ask).collect()
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

/// One run that imports a package whole: reading a binding is what evaluates a file of a pack.
fn load(host: &Host, specifiers: &[String]) -> Outcome {
    let imports: String = specifiers.iter().map(|specifier| format!("import * as all from {specifier:?};")).collect();
    let names = if specifiers.is_empty() { "0" } else { "Object.values(all).length" };
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
        tenant: None,
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
SOAP), on this machine; one for a service on the internet, against a stand-in that answers as the service's
documentation has it. **loads only**: everything short of a server that cannot run here. **fails**: a test of it threw.

CPU is that of the whole life of a fresh isolate which reads all that the package exports and does nothing else, through
its pack, where the dependencies of an export load when it runs; in brackets, file by file. Heap is V8's after that.

";

fn page(rows: &[Row], asked: &[(&str, String)], bare: (f64, f64)) -> String {
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
    page.push_str(
        "\nOf OpenFn's hundred other adaptors, the registry was asked for these; the packages below are what the rest \
         stands on.\n\n",
    );
    for (package, answer) in asked {
        let _ = writeln!(page, "- `{package}`: {answer}");
    }
    page.push_str("\n## Packages behind adaptors\n\n");
    table(&mut page, rows.iter().filter(|row| !row.is_adaptor()));
    page
}

fn table<'a>(page: &mut String, rows: impl Iterator<Item = &'a Row>) {
    let rows: Vec<&Row> = rows.collect();
    let all_adaptors = rows.iter().all(|row| row.is_adaptor());
    let (behind, rule) = if all_adaptors { ("", "") } else { ("behind | ", "---|") };
    let _ = writeln!(
        page,
        "| package | version | {behind}result | what was done, or why not | CPU ms | heap MB | packed |"
    );
    let _ = writeln!(page, "|---|---|{rule}---|---|--:|--:|---|");
    for row in rows {
        let done = match &row.verdict {
            Verdict::Works => row.does.clone(),
            Verdict::OnlyLoads(why) => format!("{}; {why}", row.does),
            verdict => verdict.why().unwrap_or_default(),
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
        let mut cells = vec![format!("`{}`", row.name), format!("{}{mark}", row.version)];
        if !all_adaptors {
            cells.push(row.behind.clone());
        }
        cells.extend([row.verdict.word().to_owned(), done, cpu, heap, packed.to_owned()]);
        let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
        let _ = writeln!(page, "| {} |", cells.join(" | "));
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
