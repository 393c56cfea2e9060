//! Tells when the files of a project have changed.
//!
//! Editors replace files rather than write them, and orchestrators swing a link to a new directory, so what a notice of
//! the system says about a path is only a hint to look. What counts is whether the files are others than before: their
//! sizes, times and numbers, with links followed. Without notices (the system has run out of them, or the file system
//! gives none) it looks from time to time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

/// Files as they were when somebody looked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot(BTreeMap<PathBuf, Option<Look>>);

/// What tells a file from the one that was there before.
#[derive(Clone, Debug, PartialEq)]
struct Look {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

/// Watches the files of one project.
#[derive(Debug)]
pub struct Watch {
    seen: Snapshot,
    notices: mpsc::Receiver<()>,
    /// Sends notices for as long as it lives; None if the system gives none.
    watcher: Option<RecommendedWatcher>,
}

/// How long files must stay as they are before they count as written.
const QUIET: Duration = Duration::from_millis(100);
/// How often to look without notices, and, since some file systems give none for what other machines write, with them.
const WITHOUT_NOTICES: Duration = Duration::from_secs(1);
const WITH_NOTICES: Duration = Duration::from_secs(10);

impl Snapshot {
    /// Looks at a file, which need not exist, unless that was done before.
    pub fn add(&mut self, file: PathBuf) {
        let look = look(&file);
        self.0.entry(file).or_insert(look);
    }

    /// The same files as they are now.
    fn again(&self) -> Self {
        Self(self.0.keys().map(|file| (file.clone(), look(file))).collect())
    }

    /// The files that are others than those `before`.
    fn changed_since(&self, before: &Self) -> Vec<PathBuf> {
        self.0.iter().filter(|(file, look)| before.0.get(*file) != Some(*look)).map(|(file, _)| file.clone()).collect()
    }
}

impl Watch {
    /// Watches the files of a snapshot, and links in `dir` that lead to them. What has changed since the snapshot was
    /// taken counts.
    pub fn new(dir: &Path, seen: Snapshot) -> Self {
        let (sender, notices) = mpsc::channel(1);
        let notify = move |_: notify::Result<notify::Event>| {
            // One that waits to be read is as good as two.
            let _ = sender.try_send(());
        };
        let watcher = notify::recommended_watcher(notify).ok().and_then(|mut watcher| {
            let mut directories: BTreeSet<&Path> = seen.0.keys().filter_map(|file| file.parent()).collect();
            directories.insert(dir);
            let watched = directories
                .into_iter()
                .filter(|directory| directory.is_dir())
                .try_for_each(|directory| watcher.watch(directory, RecursiveMode::NonRecursive));
            watched.ok().map(|()| watcher)
        });
        Self { seen, notices, watcher }
    }

    /// Waits until files have changed, and come to rest, and answers which.
    pub async fn next(&mut self) -> Vec<PathBuf> {
        loop {
            let mut now = self.seen.again();
            while now != self.seen {
                // An editor may write several files, and each in several steps.
                sleep(QUIET).await;
                let before = std::mem::replace(&mut now, self.seen.again());
                if now == before {
                    let changed = now.changed_since(&self.seen);
                    self.seen = now;
                    return changed;
                }
            }
            self.notice().await;
        }
    }

    async fn notice(&mut self) {
        if self.watcher.is_some() {
            let _ = timeout(WITH_NOTICES, self.notices.recv()).await;
        } else {
            sleep(WITHOUT_NOTICES).await;
        }
    }
}

fn look(file: &Path) -> Option<Look> {
    let metadata = fs::metadata(file).ok()?;
    Some(Look {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Changes files while a watch waits for it, with and without the system's notices.
    fn changed(prepare: impl Fn(&Path), change: impl Fn(&Path)) -> Vec<String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let [with, without] = [true, false].map(|notices| {
            let dir = tempfile::tempdir().unwrap();
            let dir = dir.path();
            prepare(dir);
            let mut files = Snapshot::default();
            ["project.yaml", "jobs/a.js", ".env"].into_iter().for_each(|file| files.add(dir.join(file)));
            runtime.block_on(async {
                let mut watch = Watch::new(dir, files);
                assert!(watch.watcher.is_some());
                if !notices {
                    watch.watcher = None;
                }
                change(dir);
                let changed = watch.next().await;
                assert!(timeout(QUIET * 3, watch.next()).await.is_err(), "told twice");
                changed
                    .iter()
                    .map(|file| file.strip_prefix(dir).unwrap().to_string_lossy().into_owned())
                    .collect::<Vec<_>>()
            })
        });
        assert_eq!(with, without);
        with
    }

    fn project(dir: &Path) {
        fs::create_dir(dir.join("jobs")).unwrap();
        fs::write(dir.join("project.yaml"), "a").unwrap();
        fs::write(dir.join("jobs/a.js"), "a").unwrap();
    }

    #[test]
    fn files_that_are_written_replaced_made_or_removed_have_changed() {
        let write = |dir: &Path| fs::write(dir.join("jobs/a.js"), "more").unwrap();
        assert_eq!(changed(project, write), ["jobs/a.js"]);
        let replace = |dir: &Path| {
            fs::write(dir.join("jobs/a.js~"), "a").unwrap();
            fs::rename(dir.join("jobs/a.js~"), dir.join("jobs/a.js")).unwrap();
        };
        assert_eq!(changed(project, replace), ["jobs/a.js"]);
        assert_eq!(changed(project, |dir| fs::write(dir.join(".env"), "A=1").unwrap()), [".env"]);
        let several = |dir: &Path| {
            fs::remove_file(dir.join("project.yaml")).unwrap();
            fs::write(dir.join("jobs/b.js"), "not watched").unwrap();
            fs::write(dir.join("jobs/a.js"), "more").unwrap();
        };
        assert_eq!(changed(project, several), ["jobs/a.js", "project.yaml"]);
    }

    #[test]
    fn what_changed_before_the_watch_began_counts() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        project(dir.path());
        let mut files = Snapshot::default();
        files.add(dir.path().join("jobs/a.js"));
        fs::write(dir.path().join("jobs/a.js"), "more").unwrap();
        let changed = runtime.block_on(async { Watch::new(dir.path(), files).next().await });
        assert_eq!(changed, [dir.path().join("jobs/a.js")]);
    }

    #[test]
    fn a_link_that_swings_changes_what_lies_behind_it() {
        let prepare = |dir: &Path| {
            for version in ["1", "2"] {
                fs::create_dir(dir.join(version)).unwrap();
                fs::write(dir.join(version).join("project.yaml"), version).unwrap();
            }
            fs::create_dir(dir.join("jobs")).unwrap();
            std::os::unix::fs::symlink("1", dir.join("data")).unwrap();
            std::os::unix::fs::symlink("data/project.yaml", dir.join("project.yaml")).unwrap();
        };
        let swing = |dir: &Path| {
            std::os::unix::fs::symlink("2", dir.join("new")).unwrap();
            fs::rename(dir.join("new"), dir.join("data")).unwrap();
        };
        assert_eq!(changed(prepare, swing), ["project.yaml"]);
    }
}
