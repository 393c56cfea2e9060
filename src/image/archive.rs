//! The image as files: a directory in OCI's layout, or a tar that is that layout and Docker's archive at once.
//!
//! Both formats name blobs by path, so `index.json` and `manifest.json` can stand side by side and share them. Whoever
//! reads the one does not look at the other.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use serde_json::{Value, json};

use super::Image;
use super::config::{MANIFEST_TYPE, descriptor};
use super::layer::Tree;

/// The file that makes a directory a layout.
const MARK: &str = "oci-layout";

/// Writes one tar for `docker load`, `podman load` and `skopeo copy`.
pub fn write_tar(image: &Image, name: &str, to: impl Write) -> io::Result<()> {
    let mut tree = Tree::default();
    for (path, bytes) in files(image, name) {
        tree.file(path, bytes);
    }
    tree.file("manifest.json", docker_manifest(image, name));
    tree.write(to)
}

/// Writes a layout into a directory: one that is new, empty, or a layout already, whose blobs stay.
pub fn write_directory(image: &Image, name: &str, dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir.join("blobs/sha256"))?;
    for (path, bytes) in files(image, name) {
        let path = dir.join(path);
        if path.metadata().is_ok_and(|there| there.len() == bytes.len() as u64) && path.starts_with(dir.join("blobs")) {
            continue;
        }
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        file.write_all(&bytes)?;
        file.as_file().set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
        file.persist(path)?;
    }
    Ok(())
}

/// Whether a layout may be written into `dir`.
pub fn is_free(dir: &Path) -> bool {
    dir.join(MARK).exists() || dir.read_dir().map_or(true, |mut entries| entries.next().is_none())
}

/// The files of the layout; the index, which makes the rest count, comes last.
fn files(image: &Image, name: &str) -> Vec<(String, bytes::Bytes)> {
    let blob = |digest: &str| format!("blobs/{}", digest.replace(':', "/"));
    let mut files: Vec<(String, bytes::Bytes)> =
        image.layers.iter().map(|layer| (blob(&layer.blob.digest), layer.blob.bytes.clone())).collect();
    files.push((blob(&image.config_digest), image.config.clone()));
    files.push((blob(&image.digest), image.manifest.clone()));
    files.push((MARK.into(), json!({ "imageLayoutVersion": "1.0.0" }).to_string().into()));
    files.push(("index.json".into(), index(image, name).to_string().into()));
    files
}

fn index(image: &Image, name: &str) -> Value {
    let tag = name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
    let mut manifest = descriptor(MANIFEST_TYPE, &image.digest, image.manifest.len());
    manifest["platform"] = json!({ "architecture": "amd64", "os": "linux" });
    // The tag is OCI's way to name an image in a layout; the whole name is containerd's.
    manifest["annotations"] = json!({ "io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag });
    json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [manifest] })
}

fn docker_manifest(image: &Image, name: &str) -> String {
    let blob = |digest: &str| format!("blobs/{}", digest.replace(':', "/"));
    let layers: Vec<String> = image.layers.iter().map(|layer| blob(&layer.blob.digest)).collect();
    json!([{ "Config": blob(&image.config_digest), "RepoTags": [name], "Layers": layers }]).to_string()
}
