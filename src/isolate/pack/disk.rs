//! Packs on disk: a title, a JSON header of fixed meaning, then all sources and code caches in one block.
//!
//! A pack belongs to one build of fnhost and one state of the package files; anything else is rebuilt, never mended.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::super::hash_seed;
use super::{Code, Entry, Habits, Kind, Module, Pack, Target, is_unchanged};
use crate::isolate::mapped::mapped;

/// What can be known of a pack on disk before it is read.
pub struct Title {
    /// That of the pack.
    pub fingerprint: u64,
    /// Whether the next run is to explore.
    pub wants_exploration: bool,
}

/// Bytes of a title: fingerprint, exploration, and length of the header, as numbers of 64 bits.
const TITLE: usize = 24;

#[derive(Serialize, Deserialize)]
struct Header {
    build: String,
    modules: Vec<ModuleHeader>,
    entries: BTreeMap<String, (u32, Vec<String>)>,
    code: Vec<(String, usize)>,
    habits: Habits,
}

#[derive(Serialize, Deserialize)]
struct ModuleHeader {
    path: String,
    kind: u8,
    length: usize,
    /// Specifier, type of target, number, text and code.
    targets: Vec<(String, u8, u32, String, String)>,
    stamp: (u64, u64),
}

/// Names the build: code caches are only good for the V8 that made them, with this seed of its hashes, and sources for
/// the transform that did.
pub fn build_id() -> String {
    let version = concat!(env!("CARGO_PKG_VERSION"), " ", env!("FNHOST_PACK_ID"));
    format!("{version} v8 {} seed {}", deno_core::v8::VERSION_STRING, hash_seed::get())
}

/// Of the pack at `path`, whatever build it belongs to.
pub fn title(path: &Path) -> Option<Title> {
    let mut bytes = [0; TITLE];
    File::open(path).ok()?.read_exact(&mut bytes).ok()?;
    let [fingerprint, wants_exploration, _] = numbers(&bytes);
    Some(Title { fingerprint, wants_exploration: wants_exploration != 0 })
}

fn numbers(title: &[u8; TITLE]) -> [u64; 3] {
    let mut numbers = [0; 3];
    for (number, bytes) in numbers.iter_mut().zip(title.chunks_exact(8)) {
        *number = u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    }
    numbers
}

/// Reads the pack at `path`. None if there is none, it belongs to another build, or a package file has changed.
pub fn load(path: &Path) -> Option<Pack> {
    let bytes = mapped(path).ok()?;
    let (title, rest) = bytes.split_first_chunk::<TITLE>()?;
    let [_, _, length] = numbers(title);
    let (header, sources) = rest.split_at_checked(length as usize)?;
    let header: Header = serde_json::from_slice(header).ok()?;
    if header.build != build_id() {
        return None;
    }
    let mut cursor = bytes.len() - sources.len();
    let mut modules = Vec::with_capacity(header.modules.len());
    for module in header.modules {
        let path: std::path::PathBuf = module.path.into();
        if !is_unchanged(&path, module.stamp) {
            return None;
        }
        let source = bytes.get(cursor..cursor + module.length)?;
        cursor += module.length;
        modules.push(Module {
            path,
            kind: match module.kind {
                0 => Kind::Esm,
                1 => Kind::Cjs,
                _ => Kind::Json,
            },
            source,
            targets: module
                .targets
                .into_iter()
                .map(|(specifier, kind, number, text, code)| {
                    let target = match kind {
                        0 => Target::Module(number),
                        1 => Target::Builtin(text),
                        _ => Target::Missing { code, message: text },
                    };
                    (specifier, target)
                })
                .collect(),
            stamp: module.stamp,
        });
    }
    let mut code = HashMap::with_capacity(header.code.len());
    for (key, length) in header.code {
        cursor += padding(cursor);
        code.insert(key, Code::Stored(bytes.get(cursor..cursor + length)?));
        cursor += length;
    }
    let entries =
        header.entries.into_iter().map(|(name, (module, exports))| (name, Entry { module, exports })).collect();
    Some(Pack { file: bytes, ..Pack::new(modules, entries, code, header.habits, false) })
}

/// Writes the pack to `path`, whole or not at all.
pub fn store(pack: &Pack, path: &Path) -> std::io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory)?;
    hash_seed::keep(directory)?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(&to_bytes(pack)?)?;
    // Readable by whoever may read the packages beside it: a store is often written by one user and used by another.
    file.as_file().set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    file.persist(path)?;
    Ok(())
}

/// The pack as a file holds it: the same bytes for the same pack.
pub fn to_bytes(pack: &Pack) -> std::io::Result<Vec<u8>> {
    let code = pack.code.read().expect("code cache");
    let mut code: Vec<_> = code.iter().collect();
    code.sort_by_key(|(key, _)| key.as_str());
    let header = Header {
        build: build_id(),
        modules: pack
            .modules
            .iter()
            .map(|module| ModuleHeader {
                path: module.path.to_string_lossy().into_owned(),
                kind: module.kind as u8,
                length: module.source.len(),
                targets: module
                    .targets
                    .iter()
                    .map(|(specifier, target)| {
                        let (kind, number, text, code) = match target {
                            Target::Module(number) => (0, *number, "", ""),
                            Target::Builtin(name) => (1, 0, name.as_str(), ""),
                            Target::Missing { code, message } => (2, 0, message.as_str(), code.as_str()),
                        };
                        (specifier.clone(), kind, number, text.to_owned(), code.to_owned())
                    })
                    .collect(),
                stamp: module.stamp,
            })
            .collect(),
        entries: pack
            .entries
            .iter()
            .map(|(name, entry)| (name.clone(), (entry.module, entry.exports.clone())))
            .collect(),
        code: code.iter().map(|(key, cache)| ((*key).clone(), cache.len())).collect(),
        habits: pack.habits(),
    };
    let header = serde_json::to_vec(&header)?;
    let title = [pack.fingerprint, pack.wants_exploration().into(), header.len() as u64];
    let mut bytes: Vec<u8> = title.into_iter().flat_map(u64::to_le_bytes).collect();
    bytes.extend(header);
    for module in &pack.modules {
        bytes.extend(module.source);
    }
    for (_, cache) in code {
        bytes.resize(bytes.len() + padding(bytes.len()), 0);
        bytes.extend(&cache[..]);
    }
    Ok(bytes)
}

/// Bytes from `position` to the next place where V8 reads a code cache without copying it first.
fn padding(position: usize) -> usize {
    position.next_multiple_of(8) - position
}
