//! What an image says shall run, run as it says: as its user, with its variables, on a root that cannot be written.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

/// An image's file system, and a directory for its data.
#[derive(Debug)]
pub struct Unpacked {
    directory: TempDir,
    /// What the image tells a runtime.
    pub config: Value,
}

impl Unpacked {
    /// The image with this tag in a directory of OCI's layout.
    pub fn image(layout: &Path, tag: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let image = format!("{}:{tag}", layout.display());
        output(
            Command::new("umoci")
                .args(["unpack", "--rootless", "--image", &image])
                .arg(directory.path().join("bundle")),
        );
        let config = output(Command::new("skopeo").args(["inspect", "--raw", "--config", &format!("oci:{image}")]));
        let config: Value = serde_json::from_str(&config).unwrap();
        std::fs::create_dir(directory.path().join("data")).unwrap();
        Self { config: config["config"].clone(), directory }
    }

    pub fn root(&self) -> PathBuf {
        self.directory.path().join("bundle/rootfs")
    }

    /// The program that the image starts, and its arguments.
    pub fn entrypoint(&self) -> Vec<String> {
        [texts(&self.config["Entrypoint"]), texts(&self.config["Cmd"])].concat()
    }

    /// How the image says that one asks whether it is well.
    pub fn health_check(&self) -> Vec<String> {
        let test = texts(&self.config["Healthcheck"]["Test"]);
        assert_eq!(test[0], "CMD");
        test[1..].to_vec()
    }

    /// What the image's processes see as `/data`.
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// A command within the image, with the image's variables and `env`, on a root that cannot be written. The network is
    /// that of the test.
    pub fn command(&self, words: &[String], env: &[(String, String)]) -> Command {
        let (user, group) = self.config["User"].as_str().unwrap().split_once(':').unwrap();
        let mut command = Command::new("bwrap");
        command.args(["--unshare-user", "--uid", user, "--gid", group, "--die-with-parent", "--clearenv"]);
        command.arg("--ro-bind").arg(self.root()).arg("/");
        command.arg("--bind").arg(self.data()).arg("/data");
        command.args(["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]);
        command.args(["--chdir", self.config["WorkingDir"].as_str().unwrap()]);
        let own = texts(&self.config["Env"]);
        let own = own.iter().filter_map(|pair| pair.split_once('='));
        for (name, value) in own.chain(env.iter().map(|(name, value)| (name.as_str(), value.as_str()))) {
            command.args(["--setenv", name, value]);
        }
        command.arg("--").args(words);
        command
    }
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// What a tool prints, once it has done what it should.
#[track_caller]
pub fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}, which scripts/test installs: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
