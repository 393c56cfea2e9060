//! Adaptors and libraries in packs: they behave as in the module graph of the language and under Node's `require`.
//!
//! Each directory of `tests/fixtures/packs` is an adaptor (its `libraries` lie in a `node_modules` beside it) that
//! exports `result`, and `expected.json` is what a job gets from it. Every case runs three times: file by file, through
//! a pack that is made on the spot, and through that pack as it was kept on disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::gate::Gate;
use crate::support::{Ran, Run};

const JOB: &str = "
    import { result } from '@test/adaptor';
    export default [async () => ({ result: typeof result === 'function' ? await result() : result })];
";

/// Why an adaptor is loaded file by file, as the log tells.
const UNPACKED: &str = "The adaptors load slowly, file by file: ";

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/packs").join(name)
}

/// A job on the adaptor in `directory`, with a store of its own.
fn job_on(directory: &Path, source: &str) -> Run {
    let run = Run::of("job.js", source);
    copy(directory, &run.path("adaptor"), "libraries", "node_modules");
    let manifest = run.path("adaptor/package.json");
    if !manifest.exists() {
        let text = json!({ "name": "@test/adaptor", "version": "1.0.0", "type": "module", "main": "index.js" });
        fs::write(manifest, text.to_string()).unwrap();
    }
    run.adaptor("@test/adaptor=adaptor").env("FNHOST_REPO_DIR", "store").args(&["-l", "debug"])
}

/// Copies a directory; what is called `name` in it becomes `renamed`.
fn copy(from: &Path, to: &Path, name: &str, renamed: &str) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = if entry.file_name() == name { to.join(renamed) } else { to.join(entry.file_name()) };
        if entry.path().is_dir() {
            copy(&entry.path(), &target, name, renamed);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The runs of a case: file by file, in a new pack, in the pack on disk.
fn thrice(directory: &Path, source: &str) -> [Ran; 3] {
    let unpacked = job_on(directory, source).env("FNHOST_PACKS", "off").go();
    let packed = job_on(directory, source);
    [unpacked, packed.go(), packed.go()]
}

#[test]
fn adaptors_behave_the_same_packed_and_unpacked() {
    let mut cases: Vec<PathBuf> = fs::read_dir(fixture("")).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() > 20);
    let mut failures = String::new();
    for case in cases {
        let name = case.file_name().unwrap().to_str().unwrap().to_owned();
        let expected: Value = serde_json::from_slice(&fs::read(case.join("expected.json")).unwrap()).unwrap();
        for (ran, way) in thrice(&case, JOB).into_iter().zip(["unpacked", "packed", "packed on disk"]) {
            let state: Value = serde_json::from_str(&ran.stdout).unwrap_or_default();
            if ran.code != Some(0) || state["result"] != expected {
                failures += &format!("\n{name}, {way}: {}\n{}", state["result"], ran.stderr);
            }
            let fell_back = ran.stderr.contains(UNPACKED);
            let reason = ran.stderr.contains("slow/index.js awaits at its top level");
            let as_expected = match (way, name.as_str()) {
                ("unpacked", _) => fell_back,
                (_, "top-level-await") => fell_back && reason,
                _ => !fell_back,
            };
            if !as_expected {
                failures += &format!("\n{name}, {way}: {}packed\n{}", if fell_back { "not " } else { "" }, ran.stderr);
            }
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

#[test]
fn a_job_imports_what_an_adaptor_exports() {
    let run = |source: &str| {
        let directory = tempfile::tempdir().unwrap();
        fs::write(
            directory.path().join("index.js"),
            "export const value = 1;\nexport const execute = (...fs) => async s => { for (const f of fs) s = await f(s); return s; };\n\
             export const add = n => s => ({ ...s, sum: (s.sum ?? 0) + n });\nexport default { inner: 2 };\nexport { value as 'odd-name' };\n",
        )
        .unwrap();
        thrice(directory.path(), source).map(Ran::completed)
    };
    for state in run("add(1); add(2);") {
        assert_eq!(state["sum"], 3);
    }
    let source = "
        import whole, { value as renamed, add, 'odd-name' as odd } from '@test/adaptor';
        import * as all from '@test/adaptor';
        export default [add(renamed), s => ({ ...s, whole, odd, names: Object.keys(all).sort() })];
    ";
    for state in run(source) {
        assert_eq!((&state["sum"], &state["odd"], &state["whole"]), (&json!(1), &json!(1), &json!({ "inner": 2 })));
        assert_eq!(state["names"], json!(["add", "default", "execute", "odd-name", "value"]));
    }
}

#[test]
fn errors_while_an_adaptor_loads_name_its_file_and_line() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir_all(directory.path().join("libraries/broken")).unwrap();
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
    write(
        "libraries/broken/package.json",
        r#"{ "name": "broken", "version": "1.0.0", "type": "module", "main": "index.js" }"#,
    );
    // Loads once, for the list of its exports, and not again: only then is the pack what fails.
    write(
        "libraries/broken/index.js",
        "import { homedir } from 'node:os';\nexport const fails = () => {\n  return homedir.no.such;\n};\n",
    );
    write("index.js", "import {\n  fails,\n} from 'broken';\n\nexport const result = () => fails();\n");
    for ran in thrice(directory.path(), JOB) {
        let ran = ran.expect(1);
        assert!(ran.stderr.contains("index.js:5:"), "{}", ran.stderr);
        assert!(ran.stderr.contains("reading 'such'"), "{}", ran.stderr);
    }
    write("libraries/broken/index.js", "export const fails = 1;\nconst nothing = undefined;\n\nnothing.at.load;\n");
    for ran in thrice(directory.path(), JOB) {
        assert_ne!(ran.code, Some(0));
        assert!(ran.stderr.contains("broken/index.js:4:9"), "{}", ran.stderr);
        assert!(ran.stderr.contains("reading 'at'"), "{}", ran.stderr);
    }
    write("libraries/broken/index.js", "export const fails = 1;\nconst const = 2;\n");
    for ran in thrice(directory.path(), JOB) {
        assert_ne!(ran.code, Some(0));
        assert!(ran.stderr.contains("broken/index.js:2:"), "{}", ran.stderr);
    }
}

#[test]
fn a_pack_is_kept_as_soon_as_it_is_made() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("index.js"), "export const result = url => fetch(url);\n").unwrap();
    let gate = Gate::new();
    let source = format!("import {{ result }} from '@test/adaptor'; export default [() => result('{}')];", gate.url());
    let run = job_on(directory.path(), &source);
    let mut child = run.command().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let held = gate.held();
    child.kill().unwrap();
    child.wait().unwrap();
    drop(held);
    let packs = fs::read_dir(run.path("store/node_modules/.fnhost/packs")).unwrap();
    let is_pack = |entry: &fs::DirEntry| entry.path().extension().is_some_and(|extension| extension == "pack");
    assert_eq!(packs.flatten().filter(is_pack).count(), 1);
}

#[test]
fn a_changed_file_makes_a_new_pack() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("index.js"), "export { result } from './value.js';\n").unwrap();
    fs::write(directory.path().join("value.js"), "export const result = 'before';\n").unwrap();
    let run = job_on(directory.path(), JOB);
    assert_eq!(run.go().completed()["result"], "before");
    assert_eq!(run.go().completed()["result"], "before");
    let run = run.file("adaptor/value.js", "export const result = 'afterwards';\n");
    assert_eq!(run.go().completed()["result"], "afterwards");
}

#[test]
fn the_machine_that_packages_see_is_made_up() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(
        directory.path().join("index.js"),
        "import os from 'node:os';\nimport fs from 'node:fs';\nimport { createRequire } from 'node:module';\n\
         const require = createRequire(import.meta.url);\n\
         const outside = () => { try { require('/etc/hostname.json'); } catch (error) { return error.code ?? error.message; } };\n\
         export const result = () => ({ host: os.hostname(), home: os.homedir(), user: os.userInfo().username,\n\
           interfaces: os.networkInterfaces(), load: os.loadavg(), cwd: fs.statSync(process.cwd()).isDirectory(),\n\
           program: [process.execPath, process.argv[0], process.argv.length], process: [process.pid, process.ppid],\n\
           outside: outside() });\n",
    )
    .unwrap();
    for ran in thrice(directory.path(), JOB) {
        let expected = json!({
            "host": "localhost", "home": "/", "user": "fnhost", "interfaces": {}, "load": [0, 0, 0],
            "program": ["/fnhost", "/fnhost", 2], "process": [1, 0], "cwd": true, "outside": "MODULE_NOT_FOUND",
        });
        assert_eq!(ran.completed()["result"], expected);
    }
}

#[test]
fn the_program_carries_its_own_javascript() {
    let program = fs::read(env!("CARGO_BIN_EXE_fnhost")).unwrap();
    for path in [concat!(env!("CARGO_MANIFEST_DIR"), "/js/"), concat!(env!("CARGO_MANIFEST_DIR"), "/src/../js/")] {
        let found = program.windows(path.len()).any(|window| window == path.as_bytes());
        assert!(!found, "the program reads {path}… at run time");
    }
}

#[test]
fn a_pack_holds_for_files_that_came_out_of_an_archive() {
    use std::os::unix::fs::MetadataExt as _;
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("index.js"), "export const result = 1;").unwrap();
    let run = job_on(directory.path(), JOB);
    let result = || run.go().completed()["result"].clone();
    let pack = || {
        let files = walkdir::WalkDir::new(run.path("store")).into_iter().flatten();
        let mut packs = files.filter(|file| file.path().extension().is_some_and(|extension| extension == "pack"));
        packs.next().expect("a pack").metadata().unwrap().modified().unwrap()
    };
    assert_eq!((result(), result()), (json!(1), json!(1)));
    let made = pack();

    // Archives keep whole seconds: some the one before, some the one that is nearest.
    let index = fs::File::options().write(true).open(run.path("adaptor/index.js")).unwrap();
    let modified = u64::try_from(index.metadata().unwrap().mtime()).unwrap();
    let second = |ahead| std::time::UNIX_EPOCH + std::time::Duration::from_secs(modified + ahead);
    for ahead in [1, 0] {
        index.set_modified(second(ahead)).unwrap();
        assert_eq!((result(), pack()), (json!(1), made));
    }

    index.set_modified(second(2)).unwrap();
    assert_eq!(result(), json!(1));
    assert_ne!(pack(), made, "a file of another time may be another file");
}
