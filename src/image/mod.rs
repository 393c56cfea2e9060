//! Images: the program, a project and its adaptors, ready for a container runtime, without a container runtime.
//!
//! An image is a manifest, a configuration and layers, all named by the digest of their bytes. None of it needs a
//! daemon: this room writes the tars ([`layer`]), compresses them ([`compress`]), describes them ([`config`]), and puts
//! them into a file, a directory ([`archive`]) or a registry ([`push`]). Layers go from what seldom changes to what often
//! does, so that a new version of a project is a few kilobytes beside what a registry or a node has already.
//!
//! The same input gives the same bytes: nothing here looks at the clock, the names of users or hosts, or the times of
//! files. What is in the layers is decided in [`base`], [`adaptors`] and [`sbom`]; the project's files come without their
//! secrets from `project`. This room knows neither V8 nor the server.

pub mod adaptors;
pub mod archive;
pub mod base;
pub mod compress;
pub mod config;
pub mod elf;
pub mod layer;
pub mod login;
pub mod push;
pub mod sbom;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use self::compress::{Blob, Cache, Compression, digest};
use self::config::Settings;
use self::layer::Tree;

/// Where things are in every image.
pub const PROGRAM: &str = "/usr/bin/fnhost";
pub const PROJECT: &str = "/project";
pub const DATA: &str = "/data";
pub const SBOM: &str = "/usr/share/fnhost/sbom.cdx.json";

/// What people call something, as the name of an image: letters, digits and hyphens.
pub fn image_name(text: &str) -> String {
    let text = text.to_ascii_lowercase();
    let parts: Vec<&str> = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| !part.is_empty()).collect();
    if parts.is_empty() { "project".into() } else { parts.join("-") }
}

/// The layer of the project's files, given as path and text.
pub fn project_layer(files: &BTreeMap<PathBuf, String>) -> Tree {
    let mut tree = Tree::default();
    for (path, text) in files {
        tree.file(Path::new(PROJECT).join(path), text.clone());
    }
    tree
}

/// The layer of the program.
pub fn program_layer(program: Vec<u8>) -> Tree {
    let mut tree = Tree::default();
    tree.program(PROGRAM, program);
    tree
}

/// An image that is ready to be written.
#[derive(Debug)]
pub struct Image {
    /// From the bottom.
    pub layers: Vec<Layer>,
    pub config: Bytes,
    pub config_digest: String,
    pub manifest: Bytes,
    /// Of the manifest: the image's name that cannot lie.
    pub digest: String,
}

#[derive(Debug)]
pub struct Layer {
    /// What is in it, for people.
    pub what: &'static str,
    pub files: usize,
    pub blob: Blob,
}

#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("cannot make the image: {0}")]
    Io(#[from] std::io::Error),
    #[error("{0} is not on this machine, and the program needs it: build the image where the program runs")]
    NoLibrary(String),
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    NotAProgram(#[from] elf::NotAProgram),
}

impl Image {
    /// Compresses the layers, which are given from the bottom, and describes them.
    pub fn build(
        trees: &[(&'static str, Tree)],
        settings: &Settings,
        compression: Compression,
        cache: Option<&Cache>,
    ) -> Result<Self, ImageError> {
        let mut layers = Vec::with_capacity(trees.len());
        for (what, tree) in trees {
            let blob = compress::compress(tree, compression, cache)?;
            layers.push(Layer { what, files: tree.files(), blob });
        }
        let named: Vec<(&str, &Blob)> = layers.iter().map(|layer| (layer.what, &layer.blob)).collect();
        let config = config::config(settings, &named);
        let blobs: Vec<&Blob> = layers.iter().map(|layer| &layer.blob).collect();
        let manifest = config::manifest(&config, &blobs, compression.method);
        Ok(Self {
            config_digest: digest(&config),
            config: config.into(),
            digest: digest(&manifest),
            manifest: manifest.into(),
            layers,
        })
    }

    /// What a registry or a node must hold: all blobs, in bytes.
    pub fn size(&self) -> u64 {
        let layers: usize = self.layers.iter().map(|layer| layer.blob.bytes.len()).sum();
        (layers + self.config.len() + self.manifest.len()) as u64
    }
}
