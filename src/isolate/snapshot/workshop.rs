//! Where snapshots are made: a process of its own, this program called with a hidden command.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::build::build;
use super::file;
use crate::isolate::host::Host;
use crate::isolate::{HostOptions, LocalAdaptor};

/// The command that [`work`] is behind.
const COMMAND: &str = "make-snapshot";

/// Making one takes a quarter of a second, and packing before that one or two. What takes this long never ends.
const PATIENCE: Duration = Duration::from_secs(60);

/// What to make one of, on the standard input of the process that does.
#[derive(Serialize, Deserialize)]
struct Order {
    store: PathBuf,
    local_adaptors: Vec<(String, PathBuf)>,
    cache: Option<PathBuf>,
    adaptors: Vec<String>,
    /// Evaluate nothing of the adaptors.
    plain: bool,
}

/// Has a snapshot made for these adaptors of a host's store, packed if they are not yet. Blocks while it is made.
pub fn commission(program: &Path, options: &HostOptions, adaptors: &[String]) -> Result<(), String> {
    let local_adaptors = options.local_adaptors.iter();
    let mut order = Order {
        store: options.store.clone(),
        local_adaptors: local_adaptors.map(|adaptor| (adaptor.specifier.clone(), adaptor.dir.clone())).collect(),
        cache: options.cache.clone(),
        adaptors: adaptors.to_vec(),
        plain: false,
    };
    attempt(program, &order).or_else(|reason| {
        tracing::info!(
            reason,
            adaptors = adaptors.join(" "),
            "no snapshot can hold these adaptors: each run loads them"
        );
        order.plain = true;
        attempt(program, &order)
    })
}

fn attempt(program: &Path, order: &Order) -> Result<(), String> {
    let failed = |error: io::Error| format!("{}: {error}", program.display());
    let mut command = Command::new(program);
    command.arg(COMMAND).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(failed)?;
    let (mut input, mut output) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
    // A process that ends before it has read all says why by how it ends.
    let _ = input.write_all(&serde_json::to_vec(order).map_err(|error| error.to_string())?);
    drop(input);
    let (sender, said) = mpsc::channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        let _ = output.read_to_string(&mut text);
        sender.send(text)
    });
    let said = said.recv_timeout(PATIENCE);
    if said.is_err() {
        let _ = child.kill();
    }
    let status = child.wait().map_err(failed)?;
    match said {
        Ok(_) if status.success() => Ok(()),
        Ok(reason) if status.code().is_some() => Err(reason.trim().to_owned()),
        Ok(_) => Err("V8 cannot write down what they evaluate".into()),
        Err(_) => Err(format!("it took longer than {} s", PATIENCE.as_secs())),
    }
}

/// Makes what standard input asks for, as the only thing that its process does.
pub fn work() -> Result<(), String> {
    let order: Order = serde_json::from_reader(io::stdin()).map_err(|error| error.to_string())?;
    let local = order.local_adaptors.into_iter();
    let host = Host::new(HostOptions {
        store: order.store,
        local_adaptors: local.map(|(specifier, dir)| LocalAdaptor { specifier, dir }).collect(),
        cache: order.cache,
        ..HostOptions::default()
    });
    // What isolates have made is gone with them before the snapshot is begun.
    let (set, modules) = host.rehearse(&order.adaptors).map_err(|error| error.message)?;
    let Some(pack) = &set.pack else { return Err(set.unpacked.clone().unwrap_or_default()) };
    let path = set.snapshot_file();
    // One at a time. Given up with the process.
    let lock = File::create(path.with_extension("lock")).map_err(|error| error.to_string())?;
    lock.lock().map_err(|error| error.to_string())?;
    let modules = if order.plain { Vec::new() } else { modules };
    let snapshot = build(&host, pack, &modules)?;
    file::store(&snapshot, &path, pack).map_err(|error| error.to_string())
}
