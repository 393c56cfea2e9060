//! A disk of a test's own, which it can fill, make read-only, and let fail.
//!
//! It is a tmpfs in namespaces of its own (user and mount), so that no rights on the machine are needed and nothing is
//! left when the test ends. Programs that are to see it are started in there.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

pub struct Disk {
    /// The process that keeps the namespaces. It ends with its stdin.
    keeper: Child,
    directory: TempDir,
}

impl Disk {
    pub fn new(megabytes: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mount = format!("mount -t tmpfs -o size={megabytes}m tmpfs \"$0\" && echo mounted && exec cat");
        let keeper = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", &mount])
            .arg(directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut keeper = keeper.expect("unshare, of the package util-linux");
        let mut line = String::new();
        BufReader::new(keeper.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(
            line, "mounted\n",
            "no tmpfs in a user namespace: this test needs them. Look at the sysctls user.max_user_namespaces and \
             kernel.unprivileged_userns_clone; in a container, at its seccomp profile"
        );
        Self { keeper, directory }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The same command, where the disk can be seen.
    pub fn command(&self, command: &Command) -> Command {
        let mut within = Command::new("nsenter");
        within.args(["--user", "--mount", "--preserve-credentials", "--target", &self.keeper.id().to_string(), "--"]);
        // Entering leaves the working directory behind.
        within.args(["sh", "-c", "cd \"$0\" && exec \"$@\""]).arg(command.get_current_dir().unwrap_or(Path::new("/")));
        within.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => within.env(name, value),
                None => within.env_remove(name),
            };
        }
        within
    }

    #[track_caller]
    fn shell(&self, script: &str) -> bool {
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(self.path());
        self.command(&command).stderr(Stdio::null()).status().unwrap().success()
    }

    /// Takes all the space that is left.
    pub fn fill(&self) {
        assert!(!self.shell("cat /dev/zero >\"$0/ballast\""), "the disk has no end");
    }

    /// Gives it back.
    pub fn clear(&self) {
        assert!(self.shell("rm \"$0/ballast\""));
    }

    /// As long as nothing on it is open for writing.
    pub fn make_read_only(&self) {
        assert!(self.shell("mount -o remount,ro \"$0\""), "the disk is in use");
    }

    /// From now on what a process writes to these files fails, as on a disk that the system has made read-only after an
    /// error; until what is given back is dropped.
    pub fn fail(&self, process: u32, files: &[PathBuf]) -> Failing {
        let writes = "pwrite64,ftruncate,fallocate,fsync,fdatasync";
        let mut command = Command::new("strace");
        command.args(["-qq", "--follow-forks", "--output=/dev/null", &format!("--attach={process}")]);
        command.args([format!("--trace={writes}"), format!("--inject={writes}:error=EROFS")]);
        for file in files {
            command.arg("--trace-path").arg(file);
        }
        let mut failing = Failing(self.command(&command).spawn().expect("a shell"));
        while !is_traced(process) {
            let ended = failing.0.try_wait().unwrap();
            assert_eq!(ended, None, "strace (scripts/test installs it) cannot trace; in a container, add SYS_PTRACE");
            std::thread::sleep(Duration::from_millis(20));
        }
        failing
    }
}

/// Whether all threads of a process are.
fn is_traced(process: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap().flatten();
    let mut threads = threads.map(|thread| std::fs::read_to_string(thread.path().join("status")).unwrap_or_default());
    threads.all(|status| !status.contains("TracerPid:\t0\n"))
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// See [`Disk::fail`].
pub struct Failing(Child);

impl Drop for Failing {
    fn drop(&mut self) {
        // Killed, it would leave the process stopped.
        let _ = Command::new("kill").args(["-INT", &self.0.id().to_string()]).status();
        let _ = self.0.wait();
    }
}
