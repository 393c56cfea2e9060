//! What the program says on stderr: log lines of the job, of the run and of the command itself.
//!
//! Lines look like those of OpenFn's own tools, `[JOB] hello` or one JSON object each, so that eyes and scripts used
//! to them need not relearn. Whatever passes through here is stripped of secrets; nothing of a run may be printed past
//! it.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::isolate::{Hide, LogLine, RunError};
use crate::secrets::Secrets;

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The command.
    Cli,
    /// The compiler.
    Compiler,
    /// The run.
    Runtime,
    /// The job and its adaptors.
    Job,
    /// What packages print past the job's console.
    Adaptor,
    /// The requests of a test run.
    Test,
}

impl Source {
    fn name(self) -> &'static str {
        match self {
            Self::Cli => "CLI",
            Self::Compiler => "CMP",
            Self::Runtime => "R/T",
            Self::Job => "JOB",
            Self::Adaptor => "ADA",
            Self::Test => "TEST",
        }
    }

    fn colour(self) -> &'static str {
        match self {
            Self::Cli => "34",
            Self::Compiler | Self::Runtime => "35",
            Self::Job | Self::Adaptor => "36",
            Self::Test => "33",
        }
    }
}

/// How loud a source is. Errors are always heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Debug,
    Info,
    Default,
    None,
}

impl Level {
    /// Whether a line of kind `kind` is printed at this level.
    fn shows(self, kind: &str) -> bool {
        match kind {
            "debug" => self <= Self::Debug,
            "info" | "log" => self <= Self::Info,
            "error" => true,
            _ => self <= Self::Default,
        }
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim().to_ascii_lowercase().as_str() {
            "debug" => Ok(Self::Debug),
            "info" => Ok(Self::Info),
            "default" => Ok(Self::Default),
            "none" => Ok(Self::None),
            other => Err(format!("`{other}` is no log level: write debug, info, default or none")),
        }
    }
}

/// The level of each source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels {
    cli: Level,
    compiler: Level,
    runtime: Level,
    job: Level,
    adaptor: Level,
}

impl Default for Levels {
    /// The job is heard in full: its lines are why people run it by hand.
    fn default() -> Self {
        Self { job: Level::Debug, ..Self::all(Level::Default) }
    }
}

impl Levels {
    fn all(level: Level) -> Self {
        Self { cli: level, compiler: level, runtime: level, job: level, adaptor: level }
    }

    fn of(&self, source: Source) -> Level {
        match source {
            Source::Cli => self.cli,
            Source::Compiler => self.compiler,
            Source::Runtime => self.runtime,
            // Requests are what a test run is for, as lines are what people run a job for.
            Source::Job | Source::Test => self.job,
            Source::Adaptor => self.adaptor,
        }
    }
}

/// Reads `debug` (all sources), `r/t=debug,job=none` (some), or both: what is named wins.
impl FromStr for Levels {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut levels = Self::default();
        let parts = || text.split(',').map(str::trim).filter(|part| !part.is_empty());
        for part in parts().filter(|part| !part.contains('=')) {
            let level: Level = part.parse()?;
            let job = if level == Level::None { Level::None } else { Level::Debug };
            levels = Self { job, ..Self::all(level) };
        }
        for (source, level) in parts().filter_map(|part| part.split_once('=')) {
            let of_source = match source.trim().to_ascii_lowercase().as_str() {
                "cli" => &mut levels.cli,
                "cmp" | "compiler" => &mut levels.compiler,
                "r/t" | "rt" | "runtime" => &mut levels.runtime,
                "job" => &mut levels.job,
                "ada" | "adaptor" => &mut levels.adaptor,
                other => return Err(format!("`{other}` is no source of log lines: write cli, cmp, r/t, job or ada")),
            };
            *of_source = level.parse()?;
        }
        Ok(levels)
    }
}

/// What a command says about its log.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Log")]
pub struct Options {
    /// What to print on stderr: debug, info, default or none; also by source, as in `debug,job=none`
    ///
    /// Sources are cli, cmp (the compiler), r/t (the run), job, and ada (what packages print by themselves). The job is
    /// heard in full unless you say otherwise, as are the requests of --test; errors are always printed.
    #[arg(short, long, value_name = "LEVEL", default_value = "default")]
    pub log: Levels,

    /// Print the log as JSON, one object a line
    #[arg(long, env = "OPENFN_LOG_JSON", value_parser = clap::builder::FalseyValueParser::new())]
    pub log_json: bool,
}

impl std::fmt::Display for Levels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = |level| match level {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Default => "default",
            Level::None => "none",
        };
        let [cli, cmp, rt, job, ada] = [self.cli, self.compiler, self.runtime, self.job, self.adaptor].map(name);
        write!(f, "cli={cli},cmp={cmp},r/t={rt},job={job},ada={ada}")
    }
}

/// Prints log lines. Cheap to clone, usable from any thread.
#[derive(Clone, Debug)]
pub struct Logger {
    levels: Levels,
    form: Form,
    secrets: Arc<Secrets>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Plain,
    Coloured,
    Json,
}

impl Logger {
    pub fn new(options: &Options) -> Self {
        let form = if options.log_json {
            Form::Json
        } else if stderr_takes_colour() {
            Form::Coloured
        } else {
            Form::Plain
        };
        Self { levels: options.log, form, secrets: Arc::default() }
    }

    /// The same logger, which from now on hides these.
    pub fn with_secrets(self, secrets: Secrets) -> Self {
        let logger = Self { secrets: Arc::new(secrets), ..self };
        if logger.secrets.left_out > 0 {
            let count = logger.secrets.left_out;
            logger.warn(Source::Cli, &format!("the configuration holds {count} more texts than are hidden in the log"));
        }
        logger
    }

    /// `text` without the run's secrets.
    pub fn hide<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.secrets.hide(text)
    }

    /// The same for the host, which hides them in the errors of a state.
    pub fn hider(&self) -> Hide {
        let secrets = self.secrets.clone();
        Arc::new(move |text| secrets.hide(text).into_owned())
    }

    /// Whether the log is for programs to read.
    pub fn is_json(&self) -> bool {
        self.form == Form::Json
    }

    pub fn debug(&self, source: Source, message: &str) {
        self.line(source, "debug", message);
    }

    pub fn info(&self, source: Source, message: &str) {
        self.line(source, "info", message);
    }

    pub fn success(&self, source: Source, message: &str) {
        self.line(source, "success", message);
    }

    pub fn warn(&self, source: Source, message: &str) {
        self.line(source, "warn", message);
    }

    pub fn error(&self, source: Source, message: &str) {
        self.line(source, "error", message);
    }

    /// The error a run ended with. `rendered` is for people; JSON gets the error itself beside it.
    pub fn run_error(&self, rendered: &str, error: &RunError) {
        let error = serde_json::to_string(error).ok();
        self.write(Source::Runtime, "error", SystemTime::now(), rendered, error.as_deref());
    }

    /// A line that a run wrote.
    pub fn run_line(&self, line: &LogLine) {
        let source = match line.source {
            "JOB" => Source::Job,
            "ADA" => Source::Adaptor,
            "TEST" => Source::Test,
            _ => Source::Runtime,
        };
        self.write(source, line.level, line.time, &line.message, None);
    }

    fn line(&self, source: Source, kind: &str, message: &str) {
        self.write(source, kind, SystemTime::now(), message, None);
    }

    fn write(&self, source: Source, kind: &str, time: SystemTime, message: &str, error: Option<&str>) {
        if !self.levels.of(source).shows(kind) {
            return;
        }
        let message = self.secrets.hide(message);
        let text = match self.form {
            Form::Json => {
                json_line(source, kind, time, &message, error.map(|error| self.secrets.hide(error)).as_deref())
            }
            Form::Plain => text_lines(source, kind, &message, false),
            Form::Coloured => text_lines(source, kind, &message, true),
        };
        // One write a message keeps lines of several threads apart. If stderr is gone, nobody is there to be told.
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }
}

fn stderr_takes_colour() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    io::stderr().is_terminal() && !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// `error` is JSON text already.
fn json_line(source: Source, kind: &str, time: SystemTime, message: &str, error: Option<&str>) -> String {
    let nanoseconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let message = serde_json::Value::from(message);
    let mut line =
        format!(r#"{{"level":"{kind}","name":"{}","message":[{message}],"time":"{nanoseconds}""#, source.name());
    if let Some(error) = error {
        let _ = write!(line, r#","error":{error}"#);
    }
    line.push_str("}\n");
    line
}

fn text_lines(source: Source, kind: &str, message: &str, coloured: bool) -> String {
    let (symbol, symbol_colour) = match kind {
        "success" => ("✔ ", "32"),
        "warn" => ("⚠ ", "33"),
        "error" => ("✘ ", "31"),
        _ => ("", ""),
    };
    let paint = |colour: &str, text: &str| match coloured && !text.is_empty() {
        true => format!("\x1b[{colour}m{text}\x1b[0m"),
        false => text.to_owned(),
    };
    let mut written =
        format!("{} {}", paint(source.colour(), &format!("[{}]", source.name())), paint(symbol_colour, symbol));
    let indent = " ".repeat(source.name().len() + 3 + symbol.chars().count());
    for (index, line) in message.trim_end_matches('\n').split('\n').enumerate() {
        if index > 0 && !line.is_empty() {
            written.push_str(&indent);
        }
        written.push_str(&if kind == "debug" { paint("2", line) } else { line.to_owned() });
        written.push('\n');
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(text: &str) -> [Level; 4] {
        let levels: Levels = text.parse().unwrap();
        [levels.cli, levels.compiler, levels.runtime, levels.job]
    }

    #[test]
    fn a_level_is_for_all_and_a_named_source_wins() {
        use Level::{Debug, Default, Info, None};
        assert_eq!(levels("default"), [Default, Default, Default, Debug]);
        assert_eq!(levels("debug"), [Debug, Debug, Debug, Debug]);
        assert_eq!(levels("none"), [None, None, None, None]);
        assert_eq!(levels("debug,r/t=none"), [Debug, Debug, None, Debug]);
        assert_eq!(levels("job=none,info"), [Info, Info, Info, None]);
        assert_eq!(levels("CMP=debug, rt=info"), [Default, Debug, Info, Debug]);
        assert!("loud".parse::<Levels>().unwrap_err().contains("no log level"));
        assert!("xyz=debug".parse::<Levels>().unwrap_err().contains("no source"));
    }

    #[test]
    fn the_default_written_out_reads_back_as_itself() {
        assert_eq!(Levels::default().to_string().parse(), Ok(Levels::default()));
    }

    #[test]
    fn errors_are_heard_at_every_level() {
        assert!(Level::None.shows("error"));
        assert!(!Level::None.shows("warn"));
        assert!(Level::Default.shows("success") && !Level::Default.shows("info"));
        assert!(Level::Info.shows("log") && !Level::Info.shows("debug"));
    }

    #[test]
    fn lines_of_one_message_stand_under_each_other() {
        assert_eq!(text_lines(Source::Job, "log", "one\n\n  two\n", false), "[JOB] one\n\n        two\n");
        assert_eq!(text_lines(Source::Runtime, "error", "one\ntwo", false), "[R/T] ✘ one\n        two\n");
    }

    #[test]
    fn a_json_line_is_json_whatever_is_logged() {
        let time = UNIX_EPOCH + std::time::Duration::from_nanos(1_700_000_000_123_456_789);
        let line = json_line(Source::Job, "log", time, "a \"b\"\n\u{1b}", Some(r#"{"name":"X"}"#));
        let line: serde_json::Value = serde_json::from_str(line.trim_end()).unwrap();
        let expected = serde_json::json!({
            "level": "log", "name": "JOB", "message": ["a \"b\"\n\u{1b}"], "time": "1700000000123456789",
            "error": { "name": "X" },
        });
        assert_eq!(line, expected);
    }
}
