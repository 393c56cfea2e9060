//! What the program says about itself: help, version, manual, completions, and to bad usage.

use crate::support::{Ran, fnhost, job};

const COMMANDS: [&str; 6] = ["run", "install", "compile", "execute", "completions", "man"];

fn go(args: &[&str]) -> Ran {
    Ran::new(fnhost(args).env("COLUMNS", "120").output().unwrap())
}

#[test]
fn help_teaches() {
    let help = go(&["--help"]).expect(0).stdout;
    for command in COMMANDS {
        assert!(help.contains(&format!("\n  {command} ")), "{command} in {help}");
    }
    for expected in ["Examples:", "fnhost run job.js -a http", "Environment:", "FNHOST_REPO_DIR", "NO_COLOR", "read on"]
    {
        assert!(help.contains(expected), "{expected} in {help}");
    }
    let nothing = go(&[]).expect(2);
    assert!(nothing.stderr.contains("Usage: fnhost <COMMAND>"), "{}", nothing.stderr);
}

#[test]
fn every_command_has_examples() {
    for command in COMMANDS {
        let help = go(&[command, "--help"]).expect(0).stdout;
        assert!(help.contains("Examples:") && help.contains(&format!("fnhost {command} ")), "{help}");
    }
}

#[test]
fn the_exit_codes_are_in_the_help_of_run() {
    let help = go(&["run", "--help"]).expect(0).stdout;
    let table = help.split("Exit codes:\n").nth(1).expect("a table of exit codes");
    let codes: Vec<&str> = table.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(codes, ["0", "1", "2", "3", "4", "5", "20", "21", "22", "23", "24", "25", "26", "130"]);
}

#[test]
fn version() {
    let version = concat!("fnhost ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(go(&["--version"]).expect(0).stdout, version);
    assert_eq!(go(&["-V"]).expect(0).stdout, version);
}

#[test]
fn completions_know_every_command() {
    for (shell, mark) in [("bash", "_fnhost()"), ("zsh", "#compdef fnhost"), ("fish", "complete -c fnhost")] {
        let script = go(&["completions", shell]).expect(0).stdout;
        assert!(script.contains(mark), "{shell}");
        for command in COMMANDS {
            assert!(script.contains(command), "{command} in the completions of {shell}");
        }
        assert!(script.contains("state-path"), "{shell}");
    }
    go(&["completions", "tcsh"]).expect(2);
}

#[test]
fn the_manual_has_a_page_for_every_command() {
    let page = go(&["man"]).expect(0).stdout;
    assert!(page.contains(".TH fnhost 1") && page.contains("ENVIRONMENT") || page.contains("Environment:"), "{page}");

    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("man1");
    go(&["man", "--out", out.to_str().unwrap()]).expect(0);
    for command in COMMANDS {
        let page = std::fs::read_to_string(out.join(format!("fnhost-{command}.1"))).unwrap();
        assert!(page.contains("Examples:"), "{command}: {page}");
    }
    assert!(out.join("fnhost.1").exists());
}

#[test]
fn bad_usage_is_explained() {
    for (args, expected) in [
        (&["--memory", "32"][..], "V8 does not start with less than 64 MB"),
        (&["--memory", "lots"], "write a number of megabytes"),
        (&["--timeout", "5 days"], "write milliseconds"),
        (&["-l", "loud"], "no log level"),
        (&["-a", "../evil"], "is not an adaptor"),
        (&["--allow-net", "https://example.org"], "not a URL"),
        (&["--allow-net", "x.org", "--deny-net"], "cannot be used with"),
        (&["--allow-net", "example.org,x.org:https"], "--allow-net: invalid port"),
        (&["-s", "state.json", "-S"], "cannot be used with"),
        (&["--no-such-flag"], "unexpected argument"),
        (&["--state-pth", "x"], "--state-path"),
    ] {
        let ran = job("fn(s => s)").args(args).go().expect(2);
        assert!(ran.stderr.contains(expected), "{args:?}: {}", ran.stderr);
        assert_eq!(ran.stdout, "");
    }
}

#[test]
fn inputs_that_cannot_be_read_are_named() {
    for (args, expected) in [
        (&["-s", "missing.json"][..], "cannot read the state from missing.json: No such file or directory"),
        (&["-c", "missing.yaml"], "cannot read the credential from missing.yaml"),
        (&["-s", "."], "cannot read the state from .: Is a directory"),
        (&["-o", "missing/out.json"], "there is no directory missing"),
        (&["-o", "."], "it is a directory"),
        (&["--cafile", "missing.pem"], "cannot use the certificates in missing.pem"),
        (&["-s", "text.json"], "text.json:2:8: the state is not valid JSON"),
        (&["-s", "list.json"], "must be a JSON object: it is an array"),
        (&["-a", "x=/does/not/exist"], "is not a package"),
    ] {
        let run = job("fn(s => s)").file("text.json", "{\n  \"a\": hello\n}").file("list.json", "[1, 2]").args(args);
        let ran = run.go();
        assert!([Some(2), Some(5)].contains(&ran.code), "{args:?}: {:?} {}", ran.code, ran.stderr);
        assert!(ran.stderr.contains(expected), "{args:?}: {}", ran.stderr);
        assert_eq!(ran.stdout, "");
    }
    let mut command = fnhost(&["run", "missing.js"]);
    let ran = Ran::new(command.current_dir(tempfile::tempdir().unwrap().path()).output().unwrap()).expect(2);
    assert_eq!(ran.stderr, "[CLI] ✘ cannot read the job from missing.js: No such file or directory\n");
}
