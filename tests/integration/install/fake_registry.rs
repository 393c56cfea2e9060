//! A npm registry in the test's own process: real enough to install from, and able to misbehave on demand.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha512};

/// What the registry does instead of answering as it should, once.
#[derive(Debug, Clone)]
pub enum Mishap {
    /// Answers this status with an empty body.
    Status(u16),
    /// Promises the whole body, sends half of it and hangs up.
    Truncated,
    /// Sends half of the body and then nothing until [`FakeRegistry::resume`].
    Stalled,
    /// Sends other bytes of the same length.
    Corrupted,
    /// Sends the client elsewhere.
    Redirect(String),
}

/// One request the registry saw.
#[derive(Debug, Clone)]
pub struct Seen {
    pub path: String,
    pub authorization: Option<String>,
}

#[derive(Default)]
struct State {
    /// Answers by path.
    answers: BTreeMap<String, Vec<u8>>,
    mishaps: BTreeMap<String, VecDeque<Mishap>>,
    seen: Vec<Seen>,
    required_authorization: Option<String>,
    resumed: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// Serves packages on a port of its own until the process ends.
pub struct FakeRegistry {
    shared: Arc<Shared>,
    origin: String,
}

/// A package to publish: its manifest beyond name and version, and its files.
#[derive(Default)]
pub struct Package {
    pub manifest: Value,
    pub files: Vec<(&'static str, &'static str)>,
    /// Replaces the tarball made of the files.
    pub tarball: Option<Vec<u8>>,
    /// Replaces the digest of the tarball in the metadata; `null` states none.
    pub integrity: Option<Value>,
}

impl FakeRegistry {
    pub fn start() -> Self {
        Self::serve("http", answer_all)
    }

    /// The same behind TLS, with a certificate for `localhost` that nobody knows. Returns its PEM text.
    pub fn start_tls() -> (Self, String) {
        let certified = rcgen::generate_simple_self_signed(["localhost".to_string()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)
            .unwrap();
        let config = Arc::new(config);
        let registry = Self::serve("https", move |stream, shared| {
            let connection = rustls::ServerConnection::new(config.clone()).unwrap();
            answer_all(rustls::StreamOwned::new(connection, stream), shared)
        });
        (registry, certified.cert.pem())
    }

    fn serve(scheme: &str, handle: impl Fn(TcpStream, &Shared) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let origin = format!("{scheme}://localhost:{}", listener.local_addr().unwrap().port());
        let shared = Arc::new(Shared::default());
        let (state, handle) = (shared.clone(), Arc::new(handle));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (state, handle) = (state.clone(), handle.clone());
                std::thread::spawn(move || handle(stream, &state));
            }
        });
        Self { shared, origin }
    }

    /// Scheme, host and port, without a slash at the end.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The part of `.npmrc` keys that names this registry: `//localhost:4873/`.
    pub fn npmrc_key(&self) -> String {
        format!("{}/", self.origin.split_once(':').unwrap().1)
    }

    pub fn publish(&self, name: &str, version: &str, package: Package) {
        let mut manifest = json!({ "name": name, "version": version });
        if let Value::Object(more) = package.manifest {
            manifest.as_object_mut().unwrap().extend(more);
        }
        let tarball = package.tarball.unwrap_or_else(|| {
            let manifest = manifest.to_string();
            let mut files =
                vec![("package/package.json", manifest.as_str()), ("package/index.js", "export default 1;")];
            files.extend(package.files);
            tarball(&files)
        });
        let base = name.rsplit('/').next().unwrap();
        let path = format!("/{name}/-/{base}-{version}.tgz");
        let integrity = package
            .integrity
            .unwrap_or_else(|| format!("sha512-{}", BASE64_STANDARD.encode(Sha512::digest(&tarball))).into());
        manifest["dist"] = json!({ "tarball": format!("{}{path}", self.origin), "integrity": integrity });
        if integrity.is_null() {
            manifest["dist"].as_object_mut().unwrap().remove("integrity");
        }

        let mut state = self.shared.state.lock().unwrap();
        state.answers.insert(path, tarball);
        let metadata = state
            .answers
            .entry(metadata_path(name))
            .or_insert_with(|| json!({ "name": name, "dist-tags": {}, "versions": {} }).to_string().into_bytes());
        let mut document: Value = serde_json::from_slice(metadata).unwrap();
        document["versions"][version] = manifest;
        document["dist-tags"]["latest"] = version.into();
        *metadata = document.to_string().into_bytes();
    }

    /// Publishes a package of nothing but a manifest and an index.
    pub fn publish_simple(&self, name: &str, version: &str, dependencies: &[(&str, &str)]) {
        let dependencies: BTreeMap<_, _> = dependencies.iter().copied().collect();
        self.publish(
            name,
            version,
            Package { manifest: json!({ "dependencies": dependencies }), ..Default::default() },
        );
    }

    /// States when versions were published.
    pub fn publication_dates(&self, name: &str, dates: &[(&str, &str)]) {
        let mut state = self.shared.state.lock().unwrap();
        let metadata = state.answers.get_mut(&metadata_path(name)).unwrap();
        let mut document: Value = serde_json::from_slice(metadata).unwrap();
        document["time"] = dates.iter().map(|(version, date)| (version.to_string(), json!(date))).collect();
        *metadata = document.to_string().into_bytes();
    }

    /// Answers `path` with these bytes.
    pub fn answer(&self, path: &str, body: &[u8]) {
        self.shared.state.lock().unwrap().answers.insert(path.into(), body.to_vec());
    }

    /// Adds to what goes wrong with a path, in order.
    pub fn mishap(&self, path: &str, mishap: Mishap) {
        self.shared.state.lock().unwrap().mishaps.entry(path.into()).or_default().push_back(mishap);
    }

    /// Lets stalled answers go on, now and in future.
    pub fn resume(&self) {
        self.shared.state.lock().unwrap().resumed = true;
        self.shared.changed.notify_all();
    }

    pub fn require_authorization(&self, header: &str) {
        self.shared.state.lock().unwrap().required_authorization = Some(header.into());
    }

    /// Everything that was asked for so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.state.lock().unwrap().seen.clone()
    }

    pub fn times_seen(&self, path: &str) -> usize {
        self.seen().iter().filter(|seen| seen.path == path).count()
    }

    /// Returns as soon as somebody has asked for `path`.
    pub fn wait_for(&self, path: &str) {
        let state = self.shared.state.lock().unwrap();
        let asked = |state: &mut State| !state.seen.iter().any(|seen| seen.path == path);
        let (_state, outcome) =
            self.shared.changed.wait_timeout_while(state, std::time::Duration::from_secs(60), asked).unwrap();
        assert!(!outcome.timed_out(), "nobody asked for {path}");
    }
}

/// Where metadata is asked for; the slash of a scope is escaped.
pub fn metadata_path(name: &str) -> String {
    format!("/{}", name.replace('/', "%2f"))
}

/// A gzipped tar archive of regular files.
pub fn tarball(files: &[(&str, &str)]) -> Vec<u8> {
    tarball_of(files.iter().map(|(path, text)| (entry(path, tar::EntryType::Regular, text.len()), text.as_bytes())))
}

/// A gzipped tar archive of any entries, however malicious.
pub fn tarball_of<'a>(entries: impl IntoIterator<Item = (tar::Header, &'a [u8])>) -> Vec<u8> {
    let mut archive = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for (header, contents) in entries {
        archive.append(&header, contents).unwrap();
    }
    archive.into_inner().unwrap().finish().unwrap()
}

/// A header whose path is written as it is: the tar crate itself would refuse `..`.
pub fn entry(path: &str, kind: tar::EntryType, size: usize) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.set_entry_type(kind);
    header.set_size(size as u64);
    header.set_mode(0o644);
    header.set_cksum();
    header
}

fn answer_all(stream: impl Read + Write, shared: &Shared) {
    // A client that hangs up is none of the registry's business.
    let _ = answer_one(stream, shared);
}

fn answer_one(mut stream: impl Read + Write, shared: &Shared) -> std::io::Result<()> {
    let mut lines = BufReader::new(&mut stream).lines();
    let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let path = first.split(' ').nth(1).unwrap_or_default().to_string();
    let mut authorization = None;
    for line in lines.by_ref() {
        let line = line?;
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(": ")
            && name.eq_ignore_ascii_case("authorization")
        {
            authorization = Some(value.to_string());
        }
    }
    drop(lines);

    let (mishap, answer, refused) = {
        let mut state = shared.state.lock().unwrap();
        state.seen.push(Seen { path: path.clone(), authorization: authorization.clone() });
        shared.changed.notify_all();
        let refused = state.required_authorization.is_some() && state.required_authorization != authorization;
        // To a proxy, the path is a whole address.
        let path = match path.split_once("://") {
            Some((_, rest)) => rest[rest.find('/').unwrap_or(rest.len())..].to_string(),
            None => path,
        };
        let mishap = state.mishaps.get_mut(&path).and_then(VecDeque::pop_front);
        (mishap, state.answers.get(&path).cloned(), refused)
    };
    let head = |status: u16, length: usize, more: &str| {
        format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n{more}\r\n")
    };
    let status = match &mishap {
        Some(Mishap::Status(status)) => Some(*status),
        _ if refused => Some(401),
        _ if answer.is_none() => Some(404),
        _ => None,
    };
    if let Some(status) = status {
        stream.write_all(head(status, 0, "").as_bytes())?;
        return stream.flush();
    }
    if let Some(Mishap::Redirect(to)) = &mishap {
        stream.write_all(head(302, 0, &format!("location: {to}\r\n")).as_bytes())?;
        return stream.flush();
    }
    let mut body = answer.unwrap_or_default();
    let half = body.len() / 2;
    stream.write_all(head(200, body.len(), "").as_bytes())?;
    match mishap {
        Some(Mishap::Truncated) => stream.write_all(&body[..half])?,
        Some(Mishap::Stalled) => {
            stream.write_all(&body[..half])?;
            stream.flush()?;
            let state = shared.state.lock().unwrap();
            drop(shared.changed.wait_while(state, |state| !state.resumed).unwrap());
            stream.write_all(&body[half..])?;
        }
        Some(Mishap::Corrupted) => {
            body[half] ^= 0xff;
            stream.write_all(&body)?;
        }
        _ => stream.write_all(&body)?,
    }
    stream.flush()
}
