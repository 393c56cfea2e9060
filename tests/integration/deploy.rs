//! The files in `deploy/`: read by the programs that they are for, and right about fnhost.
//!
//! scripts/lint has more of it: Kubernetes' manifest against its schemas, and the scripts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::container::output;
use crate::support::{PROGRAM, fnhost};

fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What docker-compose makes of these files, in a directory that has nothing else but `others`.
fn composed(files: &[&str], others: &[&str], environment: &BTreeMap<String, String>) -> String {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new("docker-compose");
    for file in files {
        let name = Path::new(file).file_name().unwrap();
        std::fs::copy(deploy(file), directory.path().join(name)).unwrap();
        command.arg("--file").arg(name);
    }
    for other in others {
        std::fs::write(directory.path().join(other), "").unwrap();
    }
    command.arg("config").current_dir(directory.path()).envs(environment);
    String::from_utf8(output(&mut command)).unwrap()
}

#[test]
fn docker_compose_reads_the_compose_file() {
    let read = composed(&["docker-compose.yaml"], &["clinics.env", "warehouse.env"], &BTreeMap::new());
    assert_eq!(read.matches("read_only: true").count(), 2, "{read}");
    assert_eq!(read.matches("no-new-privileges:true").count(), 2, "{read}");
}

#[test]
fn instant_openhie_finds_all_variables_that_its_package_uses() {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Metadata {
        id: String,
        name: String,
        description: String,
        r#type: String,
        version: String,
        dependencies: Vec<String>,
        environment_variables: BTreeMap<String, String>,
    }
    let metadata: Metadata = serde_json::from_str(&text(&deploy("instant-openhie/package-metadata.json"))).unwrap();
    assert_eq!((metadata.id.as_str(), metadata.version.as_str()), ("fnhost", env!("CARGO_PKG_VERSION")));
    assert!(!metadata.name.is_empty() && !metadata.description.is_empty() && metadata.dependencies.is_empty());
    assert!(matches!(metadata.r#type.as_str(), "infrastructure" | "use-case"), "{}", metadata.r#type);

    let files = ["docker-compose.yml", "docker-compose.dev.yml"].map(|name| format!("instant-openhie/{name}"));
    let files = files.each_ref().map(String::as_str);
    let read = composed(&files, &[], &metadata.environment_variables);
    for value in metadata.environment_variables.values() {
        assert!(read.contains(value), "{value} is not used in {read}");
    }
    let used = files.map(|file| text(&deploy(file))).concat();
    let variables = used.split("${").skip(1).map(|part| part.split('}').next().unwrap());
    for variable in variables {
        assert!(metadata.environment_variables.contains_key(variable), "{variable}");
    }
}

#[test]
fn systemd_takes_the_unit_and_finds_it_little_exposed() {
    let directory = tempfile::tempdir().unwrap();
    let unit = directory.path().join("fnhost@clinics.service");
    // Where nothing is installed, its program is not there.
    std::fs::write(&unit, text(&deploy("fnhost@.service")).replace("/usr/local/bin/fnhost", PROGRAM)).unwrap();
    let analyze = |arguments: &[&str]| {
        let mut command = Command::new("systemd-analyze");
        output(command.args(arguments).arg(&unit))
    };
    analyze(&["verify", "--man=no", "--recursive-errors=no"]);
    // In tenths of a point; without hardening, a service has 96.
    analyze(&["security", "--offline=true", "--threshold=20"]);
}

#[test]
fn settings_that_are_set_exist() {
    let help = String::from_utf8(fnhost(&["serve", "--help"]).output().unwrap().stdout).unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for path in
        [root.join("Dockerfile"), root.join("docs/operations.md"), deploy("kubernetes.yaml"), deploy("fnhost@.service")]
    {
        let text = text(&path);
        let names: Vec<String> = text
            .split(|c: char| !c.is_ascii_uppercase() && c != '_')
            .filter(|word| word.starts_with("FNHOST_"))
            .map(str::to_owned)
            .collect();
        assert!(!names.is_empty(), "{}", path.display());
        for name in names {
            // The two that are read elsewhere than among the server's settings.
            let other = matches!(name.as_str(), "FNHOST_SECRET_KEY" | "FNHOST_TOKEN");
            assert!(other || help.contains(&format!("[env: {name}=")), "{}: {name}", path.display());
        }
    }
}
