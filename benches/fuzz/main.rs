//! Throws mutilated input at what reads people's texts, for a given time: `scripts/fuzz project 600`.
//!
//! Each case is written down before it is tried, and tried in a child process, so that a case that overflows the stack or
//! never ends is found as well as one that panics. What is found is kept in a directory, one file a case, and named at the
//! end.

mod compile;
mod mutate;
mod project;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mutate::Dice;

/// Something that reads texts. A case that it should not pass makes it panic.
trait Target {
    /// The next case, as bytes.
    fn case(&mut self, dice: &mut Dice) -> Vec<u8>;
    fn try_case(&mut self, case: &[u8]);
}

fn target(name: &str) -> Option<Box<dyn Target>> {
    match name {
        "project" => Some(Box::new(project::Projects::new())),
        "compile" => Some(Box::new(compile::Jobs::new())),
        _ => None,
    }
}

/// CPU time that one case may take. Time on the wall would blame a case for what else the machine does.
const LONGEST: Duration = Duration::from_secs(1);
/// How a child ends whose case took longer.
const TOO_LONG: i32 = 3;
/// How a child ends whose case panicked.
const PANICKED: i32 = 4;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["child", name, seed, seconds, dir] => {
            child(name, number(seed), Duration::from_secs(number(seconds)), Path::new(dir))
        }
        ["try", name, file] => {
            target(name).expect("a target").try_case(&fs::read(file).expect("the case"));
            ExitCode::SUCCESS
        }
        [name, seconds] if target(name).is_some() => {
            let seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
            parent(name, number(seconds), seed)
        }
        [name, seconds, seed] if target(name).is_some() => parent(name, number(seconds), number(seed)),
        // `cargo bench` starts every benchmark, without arguments.
        [] => ExitCode::SUCCESS,
        _ => {
            eprintln!("usage: fuzz project|compile SECONDS [SEED], or fuzz try project|compile CASE");
            ExitCode::from(2)
        }
    }
}

fn number(text: &str) -> u64 {
    text.parse().expect("a whole number")
}

/// Starts children until the time is over, each with another seed, and collects the cases that ended them.
fn parent(name: &str, seconds: u64, seed: u64) -> ExitCode {
    let end = Instant::now() + Duration::from_secs(seconds);
    let dir = tempfile::tempdir().expect("a directory for the cases").keep();
    let mut found: Vec<PathBuf> = Vec::new();
    let mut cases = 0;
    let mut seed = seed;
    println!("{name}: {seconds} s from seed {seed}");
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        let program = std::env::current_exe().expect("this program");
        let left = left.as_secs().to_string();
        let output = Command::new(program)
            .args(["child", name, &seed.to_string(), &left])
            .arg(&dir)
            .output()
            .expect("the child");
        cases += String::from_utf8_lossy(&output.stdout).trim().parse::<u64>().unwrap_or(0);
        if output.status.success() {
            break;
        }
        let kind = match output.status.code() {
            Some(TOO_LONG) => "too-long",
            Some(PANICKED) => "panicked",
            _ => "crashed",
        };
        let case = dir.join(format!("{name}-{kind}-{}", found.len()));
        fs::copy(dir.join("case"), &case).expect("the case");
        println!("{kind}: {}\n{}", case.display(), String::from_utf8_lossy(&output.stderr).trim());
        found.push(case);
        seed += 1;
    }
    println!("{name}: {cases} cases, {} found", found.len());
    if found.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Tries cases until the time is over or one of them should not have passed.
fn child(name: &str, seed: u64, time: Duration, dir: &Path) -> ExitCode {
    static CASES: AtomicU64 = AtomicU64::new(0);
    let mut target = target(name).expect("a target");
    let mut dice = Dice::new(seed);
    let end = Instant::now() + time;
    std::thread::spawn(|| watch(&CASES));
    while Instant::now() < end {
        let case = target.case(&mut dice);
        fs::write(dir.join("case"), &case).expect("the case");
        CASES.fetch_add(1, Ordering::Relaxed);
        if catch_unwind(AssertUnwindSafe(|| target.try_case(&case))).is_err() {
            println!("{}", CASES.load(Ordering::Relaxed));
            return ExitCode::from(PANICKED as u8);
        }
    }
    println!("{}", CASES.load(Ordering::Relaxed));
    ExitCode::SUCCESS
}

/// Ends the process when one case takes too long.
fn watch(cases: &AtomicU64) {
    let mut seen = (0, Duration::ZERO);
    loop {
        std::thread::sleep(Duration::from_millis(100));
        let (case, used) = (cases.load(Ordering::Relaxed), cpu_time());
        if case != seen.0 {
            seen = (case, used);
        } else if used.saturating_sub(seen.1) > LONGEST {
            println!("{case}");
            std::process::exit(TOO_LONG);
        }
    }
}

/// What this process has used, as Linux tells: the 14th and 15th field, in hundredths of a second.
fn cpu_time() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    Duration::from_millis(fields.filter_map(|field| field.parse::<u64>().ok()).sum::<u64>() * 10)
}
