//! Builds a pack: walks the graph of string-literal imports from the adaptors' entry files.

use std::collections::HashMap;
use std::path::PathBuf;

use deno_ast::diagnostics::Diagnostic;
use deno_ast::{MediaType, ParseParams, ParsedSource};
use deno_core::url::Url;
use node_resolver::{NodeResolution, ResolutionMode};

use super::transform::{Imports, TargetKind, module_body, module_imports, script_requires};
use super::{Entry, Kind, Module, Pack, Target, stamp};
use crate::isolate::packages::Packages;

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
    Ok(Pack::new(modules, named, HashMap::new(), true))
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
        let file = &self.files[index];
        let url = file.url.clone();
        let mode = if file.kind == Kind::Cjs { ResolutionMode::Require } else { ResolutionMode::Import };
        let mut specifiers = file.imports.fixed.clone();
        for specifier in &file.imports.dynamic {
            if !specifiers.contains(specifier) {
                specifiers.push(specifier.clone());
            }
        }
        let mut targets = Vec::with_capacity(specifiers.len());
        for specifier in specifiers {
            let target = match self.packages.resolve_uncached(&specifier, &url, mode) {
                Ok(NodeResolution::BuiltIn(name)) => {
                    Target::Builtin(if name.starts_with("node:") { name } else { format!("node:{name}") })
                }
                Ok(NodeResolution::Module(target)) => match target.into_url() {
                    Ok(target) => self.target(target)?,
                    Err(error) => Target::Missing(error.to_string()),
                },
                // Often an optional dependency that the package probes for.
                Err(error) => Target::Missing(format!("Cannot find module '{specifier}': {error}")),
            };
            targets.push((specifier, target));
        }
        self.files[index].targets = targets;
        Ok(())
    }

    fn target(&mut self, url: Url) -> Result<Target, BuildError> {
        let path = url.path();
        if path.ends_with(".node") {
            return Ok(Target::Missing(format!("{path} is a native add-on, which fnhost does not load")));
        }
        match self.number(url) {
            Ok(number) => Ok(Target::Module(number)),
            // The module graph would fail only when this file is reached; so does the pack.
            Err(error @ (BuildError::Read(..) | BuildError::Parse(..))) => Ok(Target::Missing(error.to_string())),
            Err(error) => Err(error),
        }
    }

    fn module(&self, index: usize) -> Module {
        let file = &self.files[index];
        let source = match (&file.parsed, file.kind) {
            (Some(parsed), Kind::Esm) => {
                let slots = file
                    .targets
                    .iter()
                    .enumerate()
                    .map(|(slot, (specifier, target))| (specifier.clone(), (slot, self.target_kind(target))))
                    .collect();
                // Adaptors wait with their dependencies; inside a library the order of evaluation stays the language's.
                let lazy = file.path.to_string_lossy().contains("/node_modules/@openfn/")
                    || !file.path.to_string_lossy().contains("/node_modules/");
                module_body(parsed, &slots, lazy)
            }
            _ => file.text.clone(),
        };
        Module {
            path: file.path.clone(),
            kind: file.kind,
            source: source.leak(),
            targets: file.targets.clone(),
            stamp: file.stamp,
        }
    }

    fn target_kind(&self, target: &Target) -> TargetKind {
        match target {
            Target::Module(number) if self.files[*number as usize].kind != Kind::Esm => TargetKind::Value,
            _ => TargetKind::Namespace,
        }
    }
}
