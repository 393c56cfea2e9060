//! The layer of adaptors: what the lock names, and what saves the first start its time.

use std::path::Path;

use walkdir::WalkDir;

use super::layer::Tree;
use super::{ImageError, PROJECT, SBOM};
use crate::adaptor::layout::Plan;
use crate::adaptor::lockfile::Lockfile;

/// The layer: the packages that `lock` names as they lie in `modules`, packs by the names of their files, and the SBOM.
///
/// The links are those of the plan and not those on disk, where there may be others.
pub fn tree(
    lock: &Lockfile,
    plan: &Plan,
    modules: &Path,
    packs: Vec<(String, Vec<u8>)>,
    sbom: String,
) -> Result<Tree, ImageError> {
    let mut tree = Tree::default();
    tree.file(Path::new(PROJECT).join("fnhost.lock"), lock.to_text());
    let inside = Path::new(PROJECT).join("node_modules");
    for (_, dir, _) in plan.packages() {
        add_files(&mut tree, &modules.join(&dir), &inside.join(&dir))?;
    }
    for (path, target) in plan.links() {
        tree.link(inside.join(path), target);
    }
    for (name, bytes) in packs {
        tree.file(inside.join(".fnhost/packs").join(name), bytes);
    }
    tree.file(SBOM, sbom);
    Ok(tree)
}

fn add_files(tree: &mut Tree, from: &Path, to: &Path) -> Result<(), ImageError> {
    for entry in WalkDir::new(from) {
        let read = |source: walkdir::Error| ImageError::Read { path: from.into(), source: source.into() };
        let entry = entry.map_err(read)?;
        if entry.file_type().is_file() {
            let within = entry.path().strip_prefix(from).unwrap_or(entry.path());
            tree.copy(to.join(within), entry.path().into(), entry.metadata().map_err(read)?.len());
        }
    }
    Ok(())
}
