//! Images that are built from Dockerfiles, and containers of them: without a daemon, a registry, or rights on the machine.
//!
//! buildah builds and umoci unpacks, both from Debian. A container is what bubblewrap makes of the image's own
//! configuration: its user, its command, its environment, a read-only root and one volume. Container runtimes do no more,
//! but want cgroups that they may change.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// Images, in a place of their own.
pub struct Images(TempDir);

/// An image, unpacked.
pub struct Image {
    directory: TempDir,
    /// What a runtime is told: `process` has user, command and environment.
    pub config: Value,
    /// The command that asks a container whether it is well.
    pub healthcheck: Vec<String>,
    /// What the layers hold.
    pub entries: Vec<Entry>,
}

/// A file or a directory in a layer.
#[derive(Debug)]
pub struct Entry {
    pub path: String,
    /// As `ls` shows it: `drwxr-xr-x`.
    pub mode: String,
    /// `65532/65532`
    pub owner: String,
}

impl Images {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn buildah(&self) -> Command {
        let mut command = Command::new("buildah");
        // Copies of whole directories are the one kind of storage that every file system bears.
        command.args(["--storage-driver", "vfs"]);
        command.arg("--root").arg(self.0.path().join("storage")).arg("--runroot").arg(self.0.path().join("run"));
        command
    }

    /// Builds an image from a directory. What the build runs sees the certificates of this machine.
    #[track_caller]
    pub fn build(&self, name: &str, context: &Path, options: &[&str]) {
        let mut command = self.buildah();
        command.args(["build", "--isolation", "chroot", "--pull-never", "--tag", name]);
        // The format of the Open Container Initiative knows no health check.
        command.args(["--format", "docker", "--volume", "/etc/ssl/certs:/etc/ssl/certs:ro"]);
        output(command.args(options).arg(context));
    }

    #[track_caller]
    pub fn unpack(&self, name: &str) -> Image {
        let directory = tempfile::tempdir().unwrap();
        let (layout, bundle) = (directory.path().join("layout"), directory.path().join("bundle"));
        output(self.buildah().args(["push", "--quiet", name]).arg(format!("oci:{}:image", layout.display())));
        let mut unpack = Command::new("umoci");
        unpack.args(["unpack", "--rootless", "--image"]).arg(format!("{}:image", layout.display()));
        output(unpack.arg(&bundle));
        // Where a runtime mounts its own; it would make these if they were missing.
        for mount_point in ["dev", "proc"] {
            std::fs::create_dir_all(bundle.join("rootfs").join(mount_point)).unwrap();
        }
        std::fs::write(bundle.join("rootfs/etc/resolv.conf"), "").unwrap();
        std::fs::write(bundle.join("rootfs/etc/hosts"), "").unwrap();

        let config = json(&std::fs::read(bundle.join("config.json")).unwrap());
        let image = json(&output(self.buildah().args(["inspect", "--type", "image", name])));
        let test: Vec<String> =
            serde_json::from_value(image["Docker"]["config"]["Healthcheck"]["Test"].clone()).unwrap();
        assert_eq!(test[0], "CMD", "without a shell");
        Image { config, healthcheck: test[1..].to_vec(), entries: entries(&layout), directory }
    }
}

impl Image {
    fn root(&self) -> PathBuf {
        self.directory.path().join("bundle/rootfs")
    }

    /// The text of a file.
    #[track_caller]
    pub fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// A container that runs the image's command, or another, with `/data` in this directory.
    pub fn run(&self, data: &Path, environment: &[(&str, String)], other: Option<&[String]>) -> Command {
        let process = &self.config["process"];
        let texts = |value: &Value| -> Vec<String> { serde_json::from_value(value.clone()).unwrap() };
        let mut command = Command::new("bwrap");
        command.args(["--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--as-pid-1"]);
        command.args(["--die-with-parent", "--clearenv"]);
        command.args(["--uid", &process["user"]["uid"].to_string(), "--gid", &process["user"]["gid"].to_string()]);
        command.arg("--ro-bind").arg(self.root()).arg("/");
        command.arg("--bind").arg(data).arg("/data");
        command.args(["--proc", "/proc", "--dev", "/dev"]);
        for file in ["/etc/resolv.conf", "/etc/hosts"] {
            command.args(["--ro-bind", file, file]);
        }
        for variable in texts(&process["env"]) {
            let (name, value) = variable.split_once('=').unwrap();
            command.args(["--setenv", name, value]);
        }
        for (name, value) in environment {
            command.args(["--setenv", name, value]);
        }
        command.args(["--chdir", process["cwd"].as_str().unwrap(), "--"]);
        command.args(other.map_or_else(|| texts(&process["args"]), <[String]>::to_vec));
        command
    }
}

/// The process within a container that was started as `process`.
#[track_caller]
pub fn first_process(process: u32) -> u32 {
    let path = format!("/proc/{process}/task/{process}/children");
    let children = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    children.trim().parse().unwrap_or_else(|_| panic!("one process in the container: `{children}`"))
}

/// What is in the layers of the one image of a layout.
fn entries(layout: &Path) -> Vec<Entry> {
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().unwrap();
        layout.join("blobs").join(digest.replace(':', "/"))
    };
    let index = json(&std::fs::read(layout.join("index.json")).unwrap());
    let manifest = json(&std::fs::read(blob(&index["manifests"][0])).unwrap());
    let list = |layer: &Value| {
        let mut tar = Command::new("tar");
        tar.args(["--list", "--verbose", "--numeric-owner", "--full-time", "--file"]).arg(blob(layer));
        String::from_utf8(output(&mut tar)).unwrap()
    };
    let lines: String = manifest["layers"].as_array().unwrap().iter().map(list).collect();
    lines.lines().map(entry).collect()
}

/// `-rw-r--r-- 0/0 26 2026-11-21 15:31:07 etc/group`
fn entry(line: &str) -> Entry {
    let mut words = line.split_ascii_whitespace();
    let mode = words.next().unwrap().to_owned();
    let owner = words.next().unwrap().to_owned();
    Entry { mode, owner, path: words.nth(3).unwrap_or_else(|| panic!("{line}")).trim_end_matches('/').to_owned() }
}

fn json(text: &[u8]) -> Value {
    serde_json::from_slice(text).unwrap()
}

/// What a program that must succeed writes to stdout.
#[track_caller]
pub fn output(command: &mut Command) -> Vec<u8> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}; scripts/test installs what tests need"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
    output.stdout
}
