//! What a container runtime is told: the configuration of the image, and the manifest that ties it to its layers.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::compress::{Blob, Method, digest};
use super::layer::USER;
use super::{DATA, PROGRAM, PROJECT};

pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
pub const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";

/// What differs between images.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The server's.
    pub port: u16,
    /// Of the container, besides those that every image sets.
    pub environment: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    /// Seconds since 1970.
    pub created: u64,
}

/// The variables that every image sets.
pub fn own_environment(port: u16) -> [(&'static str, String); 5] {
    [
        ("PATH", "/usr/bin".into()),
        ("HOME", DATA.into()),
        ("FNHOST_HOST", "0.0.0.0".into()),
        ("FNHOST_DATA_DIR", DATA.into()),
        ("PORT", port.to_string()),
    ]
}

/// The image's configuration, as JSON text. `layers` are from the bottom, each with what it is.
pub fn config(settings: &Settings, layers: &[(&str, &Blob)]) -> Vec<u8> {
    let created = timestamp(settings.created);
    let mut environment: BTreeMap<&str, &str> = BTreeMap::new();
    let own = own_environment(settings.port);
    environment.extend(own.iter().map(|(name, value)| (*name, value.as_str())));
    environment.extend(settings.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let environment: Vec<String> = environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let history: Vec<Value> = layers
        .iter()
        .map(|(what, _)| json!({ "created": created, "created_by": format!("fnhost image: {what}") }))
        .collect();
    let seconds = |count: u64| count * 1_000_000_000;
    let config = json!({
        "created": created,
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "User": format!("{USER}:{USER}"),
            "ExposedPorts": { format!("{}/tcp", settings.port): {} },
            "Env": environment,
            "Entrypoint": [PROGRAM],
            "Cmd": ["serve", PROJECT],
            "Volumes": { DATA: {} },
            "WorkingDir": PROJECT,
            "Labels": settings.labels,
            "StopSignal": "SIGTERM",
            // Docker's addition to the format; others leave it aside.
            "Healthcheck": {
                "Test": ["CMD", PROGRAM, "healthcheck"],
                "Interval": seconds(30),
                "Timeout": seconds(5),
                "StartPeriod": seconds(10),
                "Retries": 3,
            },
        },
        "rootfs": {
            "type": "layers",
            "diff_ids": layers.iter().map(|(_, blob)| blob.diff_id.as_str()).collect::<Vec<_>>(),
        },
        "history": history,
    });
    config.to_string().into_bytes()
}

/// The manifest, as JSON text.
pub fn manifest(config: &[u8], layers: &[&Blob], method: Method) -> Vec<u8> {
    let layer = |blob: &&Blob| descriptor(method.media_type(), &blob.digest, blob.bytes.len());
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": descriptor(CONFIG_TYPE, &digest(config), config.len()),
        "layers": layers.iter().map(layer).collect::<Vec<_>>(),
    });
    manifest.to_string().into_bytes()
}

/// What refers to a blob.
pub fn descriptor(media_type: &str, digest: &str, size: usize) -> Value {
    json!({ "mediaType": media_type, "digest": digest, "size": size })
}

/// RFC 3339, in UTC.
fn timestamp(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().and_then(|seconds| chrono::DateTime::from_timestamp(seconds, 0));
    time.unwrap_or_default().to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}
