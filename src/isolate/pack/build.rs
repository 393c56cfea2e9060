//! Builds a pack: walks the graph of string-literal imports from the adaptors' entry files.

use std::collections::HashMap;
use std::path::PathBuf;

use deno_ast::diagnostics::Diagnostic;
use deno_ast::{MediaType, ParseParams, ParsedSource};
use deno_core::url::Url;
use node_resolver::{NodeResolution, ResolutionMode};

use super::transform::{Imports, Slots, TargetKind, module_body, module_imports, script_body, script_requires};
use super::{Entry, Habits, Kind, Module, NO_FILE, Pack, Target, stamp};
use crate::isolate::packages::{Packages, Unresolved};

/// Why an adaptor cannot be packed. It is loaded through the ordinary module graph then.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("{0} awaits at its top level")]
    TopLevelAwait(String),
    #[error("cannot read {0}: {1}")]
    Read(String, String),
    #[error("{0} does not parse: {1}")]
    Parse(String, String),
    #[error("{0} cannot be resolved: {1}")]
    Resolve(String, String),
}

/// The module before undici: its name beside undici's own, what it needs of the host (see `js/modules.js`), and its text.
const FRONT_NAME: &str = "fnhost.js";
const FRONT_PART: &str = "fnhost:http";
const FRONT: &str = r#"const { undici } = require("fnhost:http");
module.exports = undici(() => require("./index.js"), () => require("./lib/core/errors.js"));
"#;

/// The major version of undici whose agents and requests `js/http_client.js` knows.
const KNOWN_UNDICI: &str = "7";

fn is_known_undici(main: &Url) -> bool {
    let manifest = main.join("package.json").ok().and_then(|url| std::fs::read(url.to_file_path().ok()?).ok());
    let manifest = manifest.and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok());
    let version = manifest.as_ref().and_then(|manifest| manifest["version"].as_str()).unwrap_or_default();
    version.split('.').next() == Some(KNOWN_UNDICI)
}

struct File {
    url: Url,
    path: PathBuf,
    kind: Kind,
    parsed: Option<ParsedSource>,
    text: String,
    imports: Imports,
    targets: Vec<(String, Target)>,
    stamp: (u64, u64),
}

/// Builds the pack of `entries`: import specifiers with the names that each adaptor exports.
pub fn build(packages: &Packages, entries: Vec<(String, Vec<String>)>) -> Result<Pack, BuildError> {
    let mut graph = Graph { packages, files: Vec::new(), numbers: HashMap::new() };
    let mut named = HashMap::new();
    for (specifier, exports) in entries {
        let url = packages
            .resolve_for_job(&specifier)
            .map_err(|error| BuildError::Resolve(specifier.clone(), error.to_string()))?;
        let module = graph.number(url)?;
        named.insert(specifier, Entry { module, exports });
    }
    // Files are appended while the list is walked.
    let mut index = 0;
    while index < graph.files.len() {
        graph.resolve_targets(index)?;
        index += 1;
    }
    let modules = (0..graph.files.len()).map(|index| graph.module(index)).collect();
    Ok(Pack::new(modules, named, HashMap::new(), Habits::default(), true))
}

fn missing(code: &str, message: String) -> Target {
    Target::Missing { code: code.to_owned(), message }
}

/// What stands for the specifier of `import(…)` in a module's targets. `require` of the same may lead elsewhere.
fn dynamic_key(kind: Kind, specifier: &str) -> String {
    if kind == Kind::Cjs { format!("import({specifier:?})") } else { specifier.to_owned() }
}

struct Graph<'a> {
    packages: &'a Packages,
    files: Vec<File>,
    numbers: HashMap<Url, u32>,
}

impl Graph<'_> {
    fn number(&mut self, url: Url) -> Result<u32, BuildError> {
        if let Some(number) = self.numbers.get(&url) {
            return Ok(*number);
        }
        let file = self.read(&url)?;
        let number = self.files.len() as u32;
        self.files.push(file);
        self.numbers.insert(url, number);
        Ok(number)
    }

    fn read(&self, url: &Url) -> Result<File, BuildError> {
        let unreadable = |reason: String| BuildError::Read(url.to_string(), reason);
        let path = url.to_file_path().map_err(|()| unreadable("not a file".into()))?;
        if !self.packages.may_load(&path) {
            return Err(unreadable("it lies outside the installed adaptors".into()));
        }
        let bytes = std::fs::read(&path).map_err(|error| unreadable(error.to_string()))?;
        let stamp = stamp(&path).ok_or_else(|| unreadable("no modification time".into()))?;
        let text = String::from_utf8_lossy(&bytes);
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text).to_owned();
        let mut file = File {
            url: url.clone(),
            path,
            kind: Kind::Json,
            parsed: None,
            text,
            imports: Imports::default(),
            targets: Vec::new(),
            stamp,
        };
        if url.path().ends_with(".json") {
            return Ok(file);
        }
        let parsed = deno_ast::parse_program(ParseParams {
            specifier: url.clone(),
            text: file.text.as_str().into(),
            media_type: MediaType::JavaScript,
            capture_tokens: false,
            scope_analysis: true,
            maybe_syntax: None,
        })
        .map_err(|error| BuildError::Parse(url.to_string(), error.message().to_string()))?;
        let is_cjs = self
            .packages
            .is_cjs(url, parsed.compute_is_script())
            .map_err(|error| BuildError::Read(url.to_string(), error.to_string()))?;
        if is_cjs {
            file.kind = Kind::Cjs;
            file.imports = script_requires(&parsed);
        } else {
            file.kind = Kind::Esm;
            file.imports = module_imports(&parsed);
            if file.imports.top_level_await {
                return Err(BuildError::TopLevelAwait(url.to_string()));
            }
        }
        file.parsed = Some(parsed);
        Ok(file)
    }

    fn resolve_targets(&mut self, index: usize) -> Result<(), BuildError> {
        let Imports { fixed, dynamic, .. } = self.files[index].imports.clone();
        let kind = self.files[index].kind;
        let mode = if kind == Kind::Cjs { ResolutionMode::Require } else { ResolutionMode::Import };
        let mut targets = Vec::with_capacity(fixed.len() + dynamic.len());
        for specifier in fixed {
            match self.resolve(index, &specifier, mode) {
                Ok(target) => targets.push((specifier, target)),
                // Left to Node's own `require`, which throws what packages expect.
                Err(BuildError::TopLevelAwait(_)) if kind == Kind::Cjs => {}
                Err(error) => return Err(error),
            }
        }
        for specifier in dynamic {
            let key = dynamic_key(kind, &specifier);
            if targets.iter().any(|(known, _)| *known == key) {
                continue;
            }
            match self.resolve(index, &specifier, ResolutionMode::Import) {
                Ok(target) => targets.push((key, target)),
                // Left to the native `import(...)`.
                Err(BuildError::TopLevelAwait(_)) => {}
                Err(error) => return Err(error),
            }
        }
        self.files[index].targets = targets;
        Ok(())
    }

    /// The module that stands before undici, if that is what `url` is: most of what adaptors ask of it, the host does in
    /// another way, and undici is evaluated for the rest only.
    fn front(&mut self, url: &Url) -> Option<u32> {
        if !url.path().ends_with("/node_modules/undici/index.js") || !is_known_undici(url) {
            return None;
        }
        let url = url.join(FRONT_NAME).expect("a name can be joined");
        if let Some(number) = self.numbers.get(&url) {
            return Some(*number);
        }
        let specifiers = [FRONT_PART, "./index.js", "./lib/core/errors.js"].map(str::to_owned);
        let number = self.files.len() as u32;
        self.files.push(File {
            path: url.to_file_path().ok()?,
            url: url.clone(),
            kind: Kind::Cjs,
            parsed: None,
            text: FRONT.to_owned(),
            imports: Imports { fixed: specifiers.into(), ..Default::default() },
            targets: Vec::new(),
            stamp: NO_FILE,
        });
        self.numbers.insert(url, number);
        Some(number)
    }

    fn resolve(&mut self, index: usize, specifier: &str, mode: ResolutionMode) -> Result<Target, BuildError> {
        if specifier == FRONT_PART && self.files[index].stamp == NO_FILE {
            return Ok(Target::Builtin(FRONT_PART.to_owned()));
        }
        let referrer = &self.files[index].url;
        let resolution = match mode {
            ResolutionMode::Require => self.packages.resolve_required(specifier, referrer),
            ResolutionMode::Import => self.packages.resolve_imported(specifier, referrer),
        };
        match resolution {
            Ok(NodeResolution::BuiltIn(name)) => {
                Ok(Target::Builtin(if name.starts_with("node:") { name } else { format!("node:{name}") }))
            }
            Ok(NodeResolution::Module(target)) => match target.into_url() {
                Ok(target) => match self.front(&target) {
                    Some(front) if self.files[index].stamp != NO_FILE => Ok(Target::Module(front)),
                    _ => self.target(target),
                },
                Err(error) => Ok(missing("ERR_INVALID_FILE_URL_PATH", error.to_string())),
            },
            // Often an optional dependency that the package probes for.
            Err(Unresolved { code, message }) => Ok(Target::Missing { code, message }),
        }
    }

    fn target(&mut self, url: Url) -> Result<Target, BuildError> {
        let path = url.path();
        if path.ends_with(".node") {
            let message = format!("{path} is a native add-on, which fnhost does not load");
            return Ok(missing("ERR_DLOPEN_FAILED", message));
        }
        match self.number(url) {
            Ok(number) => Ok(Target::Module(number)),
            // The module graph would fail only when this file is reached; so does the pack.
            Err(error @ BuildError::Read(..)) => Ok(missing("ERR_MODULE_NOT_FOUND", error.to_string())),
            Err(error @ BuildError::Parse(..)) => Ok(missing("ERR_INVALID_MODULE", error.to_string())),
            Err(error) => Err(error),
        }
    }

    fn module(&self, index: usize) -> Module {
        let file = &self.files[index];
        let source = match &file.parsed {
            Some(parsed) if file.kind == Kind::Esm => {
                // Adaptors wait with their dependencies; inside a library the order of evaluation stays the language's.
                let lazy = file.path.to_string_lossy().contains("/node_modules/@openfn/")
                    || !file.path.to_string_lossy().contains("/node_modules/");
                let specifiers = file.imports.fixed.iter().chain(&file.imports.dynamic);
                module_body(parsed, &self.slots(file, specifiers), lazy)
            }
            Some(parsed) => script_body(parsed, &self.slots(file, &file.imports.dynamic)),
            None => file.text.clone(),
        };
        Module {
            path: file.path.clone(),
            kind: file.kind,
            source: source.leak().as_bytes(),
            targets: file.targets.clone(),
            stamp: file.stamp,
        }
    }

    /// Numbers and kinds of what `specifiers` lead to where they stand in an `import`.
    fn slots<'a>(&self, file: &File, specifiers: impl IntoIterator<Item = &'a String>) -> Slots {
        let slot = |specifier: &'a String| {
            let key = dynamic_key(file.kind, specifier);
            let slot = file.targets.iter().position(|(known, _)| *known == key)?;
            Some((specifier.clone(), (slot, self.target_kind(&file.targets[slot].1))))
        };
        specifiers.into_iter().filter_map(slot).collect()
    }

    fn target_kind(&self, target: &Target) -> TargetKind {
        match target {
            Target::Module(number) if self.files[*number as usize].kind != Kind::Esm => TargetKind::Value,
            _ => TargetKind::Namespace,
        }
    }
}
