//! Telling people how far an install is, on a terminal and in a log.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

/// What happens during an install, in this order. Counts only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Another process is installing into the same place.
    Waiting,
    /// Versions are being chosen for this many requests.
    Resolving {
        adaptors: usize,
    },
    /// `bytes` of tarballs have come in, and `done` of `total` packages are in the cache.
    Downloading {
        done: usize,
        total: usize,
        bytes: u64,
    },
    /// `done` of `total` packages are in `node_modules`.
    Linking {
        done: usize,
        total: usize,
    },
    Done,
}

/// Hears about an install while it goes on. Called from the thread that installs; must not block.
pub trait Progress: Sync {
    fn event(&self, event: Event);
}

/// Says nothing.
#[derive(Debug)]
pub struct Silent;

impl Progress for Silent {
    fn event(&self, _event: Event) {}
}

/// A bar where stderr is a terminal, lines elsewhere.
pub fn on_stderr() -> Box<dyn Progress> {
    if std::io::stderr().is_terminal() { Box::new(Bar::new()) } else { Box::<Lines>::default() }
}

/// One line when a stage is over, for logs.
#[derive(Debug, Default)]
struct Lines {
    last: Mutex<Option<Event>>,
}

impl Progress for Lines {
    fn event(&self, event: Event) {
        let line = match event {
            Event::Waiting => Some("waiting for another install to finish".to_string()),
            Event::Resolving { adaptors } => Some(format!("choosing versions for {adaptors} adaptors")),
            Event::Downloading { done, total, bytes } if done == total && total > 0 => {
                Some(format!("downloaded {total} packages ({})", HumanBytes(bytes)))
            }
            Event::Linking { done, total } if done == total && total > 0 => Some(format!("placed {total} packages")),
            _ => None,
        };
        let repeated = self.last.lock().unwrap().replace(event) == Some(event);
        if let Some(line) = line.filter(|_| !repeated) {
            eprintln!("{line}");
        }
    }
}

#[derive(Debug)]
struct Bar {
    bar: ProgressBar,
}

impl Bar {
    fn new() -> Self {
        let bar = ProgressBar::new_spinner();
        bar.enable_steady_tick(Duration::from_millis(100));
        Self { bar }
    }

    fn stage(&self, template: &str, done: usize, total: usize, message: String) {
        self.bar.set_style(ProgressStyle::with_template(template).expect("the templates here are valid"));
        self.bar.set_length(total as u64);
        self.bar.set_position(done as u64);
        self.bar.set_message(message);
    }
}

impl Progress for Bar {
    fn event(&self, event: Event) {
        const SPINNER: &str = "{spinner} {msg}";
        const COUNTED: &str = "{spinner} {msg} {wide_bar} {pos}/{len}";
        match event {
            Event::Waiting => self.stage(SPINNER, 0, 0, "waiting for another install to finish".into()),
            Event::Resolving { adaptors } => {
                self.stage(SPINNER, 0, 0, format!("choosing versions for {adaptors} adaptors"));
            }
            Event::Downloading { done, total, bytes } => {
                self.stage(COUNTED, done, total, format!("downloading ({})", HumanBytes(bytes)));
            }
            Event::Linking { done, total } => self.stage(COUNTED, done, total, "placing files".into()),
            Event::Done => self.bar.finish_and_clear(),
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
