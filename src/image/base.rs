//! The layer that seldom changes: users, directories, and the libraries that the program is linked with.
//!
//! There is no distribution below it, so there is no shell and no package manager. Two things that images usually carry
//! are in the program: the certificate authorities of the browsers, and the time zones.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::elf::Elf;
use super::layer::{Tree, USER};
use super::{DATA, ImageError};

/// Where further certificate authorities are in an image that has some.
pub const CA_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Where loaders look by themselves, whatever distribution they are from. The first that has a library is where the
/// image has it, too.
const LIBRARY_DIRECTORIES: [&str; 6] =
    ["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib"];

/// What glibc before 2.34 opens when it looks up the name of a host.
const NAME_SERVICE: [&str; 2] = ["libnss_files.so.2", "libnss_dns.so.2"];

/// A library in the image.
#[derive(Debug)]
pub struct Library {
    pub name: String,
    pub path: PathBuf,
    pub bytes: Vec<u8>,
}

/// The layer, with `libraries` and the certificate authorities in `ca_bundle` (PEM).
pub fn tree(libraries: &[Library], ca_bundle: Option<Vec<u8>>) -> Tree {
    let mut tree = Tree::default();
    tree.file("/etc/passwd", format!("root:x:0:0:root:/:/\nfnhost:x:{USER}:{USER}:fnhost:{DATA}:/\n"));
    tree.file("/etc/group", format!("root:x:0:\nfnhost:x:{USER}:\n"));
    tree.file("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n");
    // Where runtimes mount what they and the kernel give; one that may not write to the image could not make them.
    tree.file("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n");
    tree.file("/etc/resolv.conf", "");
    for directory in ["/dev", "/proc", "/sys"] {
        tree.directory(directory);
    }
    tree.directory_for("/tmp", 0o1777, 0);
    tree.directory_for(DATA, 0o700, USER);
    if let Some(bundle) = ca_bundle {
        tree.file(CA_BUNDLE, bundle);
    }
    for library in libraries {
        // Loaders are programs as well.
        tree.program(&library.path, library.bytes.clone());
    }
    tree
}

/// The libraries that a program needs, and those that these need, from this machine. None if it is linked statically.
pub fn libraries(program: &Elf) -> Result<Vec<Library>, ImageError> {
    let Some(interpreter) = program.interpreter() else { return Ok(Vec::new()) };
    let mut found = BTreeMap::new();
    let mut wanted: Vec<String> = program.needed().into_iter().map(str::to_owned).collect();
    let loader = load(Path::new(interpreter)).ok_or_else(|| ImageError::NoLibrary(interpreter.into()))?;
    let loader_name = loader.name.clone();
    found.insert(loader_name, loader);
    while let Some(name) = wanted.pop() {
        if found.contains_key(&name) {
            continue;
        }
        let library = find(&name).ok_or_else(|| ImageError::NoLibrary(name.clone()))?;
        wanted.extend(needed(&library));
        if name == "libc.so.6" && !holds(&library.bytes, b"GLIBC_2.34\0") {
            wanted.extend(NAME_SERVICE.iter().filter(|name| find(name).is_some()).map(|name| (*name).to_owned()));
        }
        found.insert(name, library);
    }
    Ok(found.into_values().collect())
}

fn find(name: &str) -> Option<Library> {
    LIBRARY_DIRECTORIES.iter().find_map(|directory| load(&Path::new(directory).join(name)))
}

/// The library at `path`, if it is one for this system.
fn load(path: &Path) -> Option<Library> {
    let bytes = fs::read(path).ok()?;
    Elf::parse(&bytes, path).ok()?;
    let name = path.file_name()?.to_str()?.to_owned();
    Some(Library { name, path: path.to_owned(), bytes })
}

fn needed(library: &Library) -> Vec<String> {
    let elf = Elf::parse(&library.bytes, &library.path);
    elf.map(|elf| elf.needed().into_iter().map(str::to_owned).collect()).unwrap_or_default()
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_comes_with_its_loader_and_its_libraries() {
        let path = Path::new("/bin/echo");
        let bytes = fs::read(path).unwrap();
        let libraries = libraries(&Elf::parse(&bytes, path).unwrap()).unwrap();
        let names: Vec<&str> = libraries.iter().map(|library| library.name.as_str()).collect();
        assert!(names.contains(&"ld-linux-x86-64.so.2") && names.contains(&"libc.so.6"), "{names:?}");
        let loader = libraries.iter().find(|library| library.name == "ld-linux-x86-64.so.2").unwrap();
        assert_eq!(loader.path, Path::new("/lib64/ld-linux-x86-64.so.2"));
    }
}
