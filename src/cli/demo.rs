//! The example that `fnhost serve --demo` serves: the project in `project/`, from the program itself.

use std::path::{Path, PathBuf};

use super::exit::Failure;

const FILES: &[(&str, &str)] = &[
    ("project.yaml", include_str!("../../project/project.yaml")),
    ("fnhost.lock", include_str!("../../project/fnhost.lock")),
    ("jobs/announce.js", include_str!("../../project/jobs/announce.js")),
    ("jobs/register-patients.js", include_str!("../../project/jobs/register-patients.js")),
    ("jobs/set-aside.js", include_str!("../../project/jobs/set-aside.js")),
];

/// The directory of the example, with its files in place. It is the user's, so that a second start finds the messages of
/// the first, and the adaptors.
pub fn directory() -> Result<PathBuf, Failure> {
    let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/share"));
    let dir = data.or_else(home).unwrap_or_else(std::env::temp_dir).join("fnhost/demo");
    for (name, text) in FILES {
        write(&dir.join(name), text)
            .map_err(|error| Failure::host(format!("cannot write the example to {}: {error}", dir.display())))?;
    }
    Ok(dir)
}

/// Leaves what is there already: someone may have tried something in it.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(path, text)
}
