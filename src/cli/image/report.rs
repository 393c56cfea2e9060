//! What became of an image: its layers and their sizes, where it went, and what a container of it still needs.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::json;

use super::contents::Contents;
use crate::image::push::Pushed;
use crate::image::{Image, PROJECT};

pub struct Report<'a> {
    pub name: &'a str,
    pub image: &'a Image,
    pub contents: &'a Contents,
    pub output: Option<&'a Path>,
    pub pushed: Option<Pushed>,
}

impl Report<'_> {
    pub fn for_people(&self) -> String {
        let Self { name, image, contents, .. } = self;
        let mut text = format!("\n{:<10}  {:>6}  {:>10}  {:>10}\n", "layer", "files", "unpacked", "in image");
        for layer in &image.layers {
            let (unpacked, packed) = (size(layer.blob.unpacked), size(layer.blob.bytes.len() as u64));
            let _ = writeln!(text, "{:<10}  {:>6}  {unpacked:>10}  {packed:>10}", layer.what, layer.files);
        }
        let _ = writeln!(text, "{:<10}  {:>6}  {:>10}  {:>10}\n", "all", "", "", size(image.size()));
        let _ = writeln!(text, "{name}  {}", image.digest);
        if let Some(path) = self.output {
            let _ = writeln!(
                text,
                "written to {}",
                if path == Path::new("-") { "stdout".into() } else { path.display().to_string() }
            );
        }
        if let Some(Pushed { uploaded, already_there }) = self.pushed {
            let _ = writeln!(text, "pushed {}; {} were there already", size(uploaded), size(already_there));
        }
        for name in &contents.variables {
            let default =
                if contents.defaults_left_out.contains(name) { ", whose default is not in the image" } else { "" };
            let _ = writeln!(text, "a container needs the variable {name}{default}");
        }
        for path in &contents.secret_files {
            let _ =
                writeln!(text, "a container needs the file {PROJECT}/{}, which is not in the image", path.display());
        }
        text
    }

    pub fn for_programs(&self) -> String {
        let layers = self.image.layers.iter().map(|layer| {
            json!({
                "what": layer.what, "digest": layer.blob.digest, "size": layer.blob.bytes.len(),
                "unpacked": layer.blob.unpacked, "files": layer.files, "from_cache": layer.blob.cached,
            })
        });
        let report = json!({
            "name": self.name,
            "digest": self.image.digest,
            "size": self.image.size(),
            "layers": layers.collect::<Vec<_>>(),
            "pushed": self.pushed,
            "variables": self.contents.variables,
            "secret_files": self.contents.secret_files,
        });
        format!("{report:#}\n")
    }
}

/// Bytes for people, in powers of ten as registries count.
fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}
