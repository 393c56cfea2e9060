//! From what a command names to what a run needs: adaptors on disk, a host that can load them, a compiled job.

use std::collections::BTreeSet;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::exit::{Exit, Failure};
use super::input::JobFile;
use super::log::{Logger, Source};
use crate::adaptor::progress::{self, Silent};
use crate::adaptor::{AdaptorSpec, InstallOptions, Installed, Progress, Store, install};
use crate::compile::{self, Adaptor, Compiled, Dialect};
use crate::isolate::{Host, HostOptions, LocalAdaptor, read_certificates};

/// The adaptors of `specs` in `store`, in that order. What is missing is installed as `install` says, if it may be.
pub fn adaptors(
    store: &Store,
    specs: &[AdaptorSpec],
    install: Option<&InstallOptions>,
    logger: &Logger,
) -> Result<Vec<Installed>, Failure> {
    let missing: Vec<AdaptorSpec> = find(store, specs)?.into_iter().filter_map(Result::err).collect();
    if !missing.is_empty() {
        let Some(options) = install else {
            return Err(not_installed(&missing));
        };
        install_missing(store, &missing, options, logger)?;
    }
    let found: Result<Vec<Installed>, AdaptorSpec> = find(store, specs)?.into_iter().collect();
    found.map_err(|missing| not_installed(&[missing]))
}

/// Each spec's package, or the spec itself where nothing is installed for it. A spec given twice counts once.
fn find(store: &Store, specs: &[AdaptorSpec]) -> Result<Vec<Result<Installed, AdaptorSpec>>, Failure> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for spec in specs {
        let package = store.find(spec).map_err(|error| Failure::host(with_causes(&error)))?;
        if seen.insert(package.as_ref().map_or_else(|| spec.to_string(), |package| package.specifier.clone())) {
            found.push(package.ok_or_else(|| spec.clone()));
        }
    }
    Ok(found)
}

fn not_installed(missing: &[AdaptorSpec]) -> Failure {
    let list = |separator: &str| missing.iter().map(short).collect::<Vec<_>>().join(separator);
    let verb = if missing.len() == 1 { "is" } else { "are" };
    Failure::host(format!("{} {verb} not installed; run: fnhost install {}", list(", "), list(" ")))
}

/// `spec` as people would type it.
pub fn short(spec: &AdaptorSpec) -> String {
    let text = spec.to_string();
    let text = text.strip_prefix("@openfn/language-").unwrap_or(&text);
    text.strip_suffix("@latest").unwrap_or(text).to_owned()
}

fn install_missing(
    store: &Store,
    missing: &[AdaptorSpec],
    options: &InstallOptions,
    logger: &Logger,
) -> Result<(), Failure> {
    let names: Vec<String> = missing.iter().map(ToString::to_string).collect();
    logger.info(Source::Cli, &format!("Installing {} into {}", names.join(", "), store.root().display()));
    let progress: Box<dyn Progress> =
        if std::io::stderr().is_terminal() && !logger.is_json() { progress::on_stderr() } else { Box::new(Silent) };
    let report = install(store, missing, options, progress.as_ref());
    // Clears the bar before anything else is written.
    drop(progress);
    let report = report.map_err(|error| {
        let hint = error.hint().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
        Failure::host(format!("cannot install {}: {}{hint}", names.join(", "), error.explain()))
    })?;
    for adaptor in &report.adaptors {
        logger.success(Source::Cli, &format!("Installed {}@{}", adaptor.name, adaptor.version));
    }
    for warning in &report.warnings {
        logger.warn(Source::Cli, warning);
    }
    Ok(())
}

/// The host for jobs on these adaptors. `FNHOST_PACKS=off` has them loaded file by file, to tell a fault of a package
/// from one of the packs, and `FNHOST_HTTP_CLIENT=undici` does the same for a server that answers undici and not the
/// program's own client. `cache` is for what is made of adaptors that lie where nothing can be written.
pub fn host(store: &Store, adaptors: &[Installed], ca_file: Option<PathBuf>, cache: Option<PathBuf>) -> Host {
    let modules = store.node_modules().canonicalize().unwrap_or_else(|_| store.node_modules());
    let local_adaptors = adaptors
        .iter()
        .filter(|adaptor| !adaptor.dir.starts_with(&modules))
        .map(|adaptor| LocalAdaptor { specifier: adaptor.specifier.clone(), dir: adaptor.dir.clone() })
        .collect();
    let is_set = |name, to| std::env::var_os(name).is_some_and(|value| value == to);
    let without_packs = is_set("FNHOST_PACKS", "off");
    let without_http_client = is_set("FNHOST_HTTP_CLIENT", "undici");
    // `node_modules` may be a link to that of another project.
    let root = modules.parent().unwrap_or(store.root()).to_owned();
    Host::new(HostOptions { store: root, local_adaptors, ca_file, cache, without_packs, without_http_client })
}

/// The file with further certificate authorities: the one asked for, else what the environment names. A wrong name in
/// the environment is only worth a warning, as with Node.
pub fn ca_file(asked: Option<&Path>, warn: impl Fn(&str)) -> Result<Option<PathBuf>, Failure> {
    if let Some(path) = asked {
        read_certificates(path).map_err(Failure::usage)?;
        return Ok(Some(path.to_owned()));
    }
    for name in ["NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE"] {
        let Some(path) = std::env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from) else { continue };
        // What is in it is read when a connection needs it: a whole bundle would cost every run its time.
        match std::fs::File::open(&path) {
            Ok(_) => return Ok(Some(path)),
            Err(error) => {
                warn(&format!("{name} is ignored: cannot read {}: {error}", path.display()));
            }
        }
    }
    Ok(None)
}

/// Compiles a job against the names its adaptors export.
pub fn compile(
    host: &Host,
    job: &JobFile,
    adaptors: &[Installed],
    dialect: Dialect,
    logger: &Logger,
) -> Result<Arc<Compiled>, Failure> {
    let specifiers: Vec<String> = adaptors.iter().map(|adaptor| adaptor.specifier.clone()).collect();
    let set = host.prepare(&specifiers).map_err(|error| Failure {
        exit: Exit::of(&error),
        message: format!("cannot load {}: {error}", list(adaptors)),
    })?;
    if let Some(reason) = &set.unpacked {
        logger.debug(Source::Cli, &format!("The adaptors load slowly, file by file: {reason}"));
    }
    let adaptors: Vec<Adaptor> = specifiers
        .iter()
        .map(|specifier| Adaptor { specifier, exports: set.exports.get(specifier).map(Vec::as_slice) })
        .collect();
    let options = compile::Options { file_name: &job.name, adaptors: &adaptors, dialect, extra_globals: &[] };
    match compile::compile(&job.source, &options) {
        Ok(compiled) => Ok(Arc::new(compiled)),
        Err(error) => Err(Failure { exit: Exit::NotCompiled, message: error.to_string() }),
    }
}

/// Names and versions, for people.
pub fn list(adaptors: &[Installed]) -> String {
    adaptors.iter().map(|adaptor| format!("{}@{}", adaptor.name, adaptor.version)).collect::<Vec<_>>().join(", ")
}

/// An error and what caused it, in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
