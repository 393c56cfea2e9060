//! Projects for the reader. It must answer each with a project or with problems that have places in the files, and show
//! nothing of a credential.

use std::fs;
use std::path::{Path, PathBuf};

use fnhost::project::{Loaded, Problem, Project};
use tempfile::TempDir;

use super::Target;
use super::mutate::{Dice, mutated};

/// Stands in files that hold only secrets. No part of it that ends in `-` can be the name of a variable.
const SECRET: &str = "hunter-2-hunter";

const CREDENTIAL: &str = "# of the registry\nusername: ${USER_NAME:-jo}\npassword: 'hunter-2-hunter'\nnested:\n  - hunter-2-hunter\n  - {a: \"x${SET}$${}hunter-2-hunter\"}\nkey: |\n  hunter-2-hunter\n  more\n";
const ENV_FILE: &str = "# c\nSET=hunter-2-hunter\nexport A='hunter-2-hunter'\nB=\"hunter-2-hunter\\n\"\n";

const TOKENS: &[&str] = &[
    "jobs:",
    "triggers:",
    "credentials:",
    "adaptor: ",
    "trigger: ",
    "expression: ",
    "criteria: ",
    "webhook: ",
    "cron: ",
    "success: ",
    "failure: ",
    "retry: ",
    "auth:",
    "signature: ",
    "file://",
    "jobs/a.js",
    "${",
    "${SET}",
    "$${",
    "}",
    ":-",
    ": ",
    ":",
    "- ",
    "-",
    "? ",
    "{",
    "}",
    "[",
    "]",
    ", ",
    "'",
    "\"",
    "\\",
    "\\u00",
    "|",
    "|2-",
    ">",
    ">-",
    "&a ",
    "*a",
    "<<: *a",
    "!!str ",
    "!x ",
    "---\n",
    "...\n",
    "%YAML 1.2\n",
    "# ",
    "\t",
    "\n",
    "\n  ",
    "\n    ",
    "\r\n",
    "\r",
    "\u{feff}",
    "é",
    "😀",
    "\u{85}",
    "\u{2028}",
    "\0",
    "\u{1b}[31m",
    "~",
    "null",
    "true",
    "0x",
    "1e999",
    "-1",
    "=",
    "* * * * *",
    "@daily",
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    "{a: {a: {a: {a: {a: {a: ",
    "- - - - - - - - - - - - ",
    "******",
    "x-a: ",
    "..",
    "/",
    "@",
    "`",
    "=",
];

pub struct Projects {
    dir: TempDir,
    texts: Vec<String>,
}

impl Projects {
    pub fn new() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let cases = fs::read_dir(root.join("tests/fixtures/project-errors")).expect("fixtures");
        let mut dirs: Vec<PathBuf> = cases.map(|case| case.expect("a case").path()).collect();
        dirs.push(root.join("project"));
        dirs.sort();
        let files = dirs.iter().flat_map(|dir| ["project.yaml", "project.json"].map(|name| dir.join(name)));
        // Those that are large on purpose would be all that is tried.
        let texts: Vec<String> =
            files.filter_map(|file| fs::read_to_string(file).ok()).filter(|text| text.len() < 10_000).collect();
        assert!(texts.len() > 30);
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("jobs")).expect("a directory");
        fs::write(dir.path().join("jobs/a.js"), "fn(s => s)").expect("a job");
        Self { dir, texts }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// The files of a case are joined by this.
const BETWEEN: &[u8] = b"\xfe\xfe\xfe\n";

impl Target for Projects {
    /// A project file, a credential and a `.env`, one of them mutilated.
    fn case(&mut self, dice: &mut Dice) -> Vec<u8> {
        let text = self.texts[dice.roll(self.texts.len())].clone();
        let other = &self.texts[dice.roll(self.texts.len())];
        let with_credential = "jobs: {a: {adaptor: common, trigger: m, expression: jobs/a.js, credential: c}}\n\
                               triggers: {m: {criteria: {}}}\ncredentials: {c: file://c.yaml}\n";
        let mut files = match dice.roll(6) {
            0 => [with_credential.into(), mutated(dice, CREDENTIAL, CREDENTIAL, TOKENS), ENV_FILE.into()],
            1 => [with_credential.into(), CREDENTIAL.into(), mutated(dice, ENV_FILE, ENV_FILE, TOKENS)],
            _ => [mutated(dice, &text, other, TOKENS), CREDENTIAL.into(), ENV_FILE.into()],
        }
        .map(String::into_bytes);
        if dice.roll(20) == 0 {
            let file = &mut files[dice.roll(3)];
            let at = dice.roll(file.len() + 1);
            file.insert(at, 0xC3);
        }
        files.join(BETWEEN)
    }

    fn try_case(&mut self, case: &[u8]) {
        let mut rest = case;
        for name in ["project.yaml", "c.yaml", ".env"] {
            let end = rest.windows(BETWEEN.len()).position(|bytes| bytes == BETWEEN).unwrap_or(rest.len());
            fs::write(self.path(name), &rest[..end]).expect("a file");
            rest = rest.get(end + BETWEEN.len()..).unwrap_or_default();
        }
        let problems = match Project::load(self.dir.path(), &|_| None) {
            Ok(Loaded { project, warnings, .. }) => {
                for workflow in &project.workflows {
                    workflow.check().expect("a sound workflow");
                }
                assert!(!format!("{project:?}").contains(SECRET));
                warnings
            }
            Err(broken) => {
                assert!(!broken.errors.is_empty());
                [broken.errors, broken.warnings].concat()
            }
        };
        for problem in problems {
            check(&problem);
        }
    }
}

fn check(problem: &Problem) {
    let text = problem.render("error");
    assert!(!text.contains(SECRET), "{text}");
    assert!(!text.contains('\u{1b}'), "{text}");
    let Some(line) = problem.line else { return };
    let bytes = fs::read(&problem.file).expect("the file of the problem");
    let source = String::from_utf8_lossy(&bytes).replace("\r\n", "\n").replace('\r', "\n");
    let source = source.strip_prefix('\u{feff}').unwrap_or(&source);
    let shown = source.split('\n').nth(line as usize - 1);
    let Some(shown) = shown else { panic!("there is no such line: {text}") };
    if let (Some(excerpt), Some(column)) = (&problem.excerpt, problem.column) {
        let printable = |c: char| if c.is_control() && c != '\t' { char::REPLACEMENT_CHARACTER } else { c };
        let shown: String = shown.chars().map(printable).collect();
        assert_eq!(excerpt.line, shown, "{text}");
        let length: usize = shown.chars().map(char::len_utf16).sum();
        assert!(column as usize <= length + 1, "{text}");
    }
}
