//! The module loader of one isolate, and the rules of who may import what.
//!
//! A job may import its adaptors and `@openfn/runtime`, nothing else. An adaptor may import what Node would let it,
//! inside the adaptor store, and Node's built-in modules, whose powers the permissions bound.

use std::borrow::Cow;
use std::cell::{Cell, OnceCell, RefCell};
use std::pin::Pin;
use std::sync::Arc;

use deno_core::error::ModuleLoaderError;
use deno_core::url::Url;
use deno_core::{
    ModuleLoadOptions, ModuleLoadReferrer, ModuleLoadResponse, ModuleLoader, ModuleSource, ModuleSourceCode,
    ModuleSpecifier, ModuleType, RequestedModuleType, ResolutionKind, SourceCodeCacheInfo,
};
use deno_error::JsErrorBox;

use super::pack::{CodeCaches, Pack, module_imports};
use super::packages::{LoadedModule, Packages};
use crate::compile::{HOST_GLOBALS, LANGUAGE_GLOBALS, RUNTIME};

/// URL scheme of job modules. Stack frames and callers are told apart by it.
pub const JOB_SCHEME: &str = "job:";

/// The referrer of an ES module that `require` loads: it has resolved the file already.
const REQUIRE_REFERRER: &str = ".";
const RUNTIME_URL: &str = "fnhost:runtime";
pub const SCOPE_URL: &str = "fnhost:scope";
/// A module that hands a job the exports of an adaptor from the pack; the adaptor's specifier follows.
const ADAPTOR_URL: &str = "fnhost:adaptor/";
const RUNTIME_SOURCE: &str = include_str!("../../js/runtime.js");
const SCOPE_SOURCE: &str = include_str!("../../js/scope.js");

/// What a job is to the loader.
pub struct JobModule {
    pub url: Url,
    pub source: Arc<str>,
    /// Import specifiers of the job's adaptors, e.g. `@openfn/language-http_7.2.10`.
    pub adaptors: Vec<String>,
}

pub struct JobLoader {
    packages: Arc<Packages>,
    /// Empty where there is none, or until there is.
    pack: OnceCell<Arc<Pack>>,
    caches: OnceCell<CodeCaches>,
    /// Empty until the isolate takes its job.
    job: OnceCell<JobModule>,
    /// The runtime's own scripts that were loaded, in order.
    scripts: RefCell<Vec<String>>,
    /// Whether a package's file was loaded as an ES module, which V8 keeps as long as the isolate.
    has_loaded_package: Cell<bool>,
}

fn refused(message: String) -> ModuleLoaderError {
    JsErrorBox::new("ImportError", message)
}

impl JobLoader {
    pub fn new(packages: Arc<Packages>) -> Self {
        Self {
            packages,
            pack: OnceCell::new(),
            caches: OnceCell::new(),
            job: OnceCell::new(),
            scripts: RefCell::default(),
            has_loaded_package: Cell::new(false),
        }
    }

    /// Gives it a pack to load from, once. Without `caches`, none are used for the runtime's own scripts, and none made.
    pub fn use_pack(&self, pack: Arc<Pack>, caches: Option<CodeCaches>) {
        assert!(self.pack.set(pack).is_ok(), "an isolate has one pack");
        if let Some(caches) = caches {
            let _ = self.caches.set(caches);
        }
    }

    /// Names the job, once.
    pub fn set_job(&self, job: JobModule) {
        assert!(self.job.set(job).is_ok(), "an isolate takes one job");
    }

    /// The runtime's own scripts that were loaded since [`Self::forget_scripts`].
    pub fn scripts(&self) -> Vec<String> {
        self.scripts.borrow().clone()
    }

    /// Whether files of packages were loaded past the pack.
    pub fn has_loaded_package(&self) -> bool {
        self.has_loaded_package.get()
    }

    pub fn forget_scripts(&self) {
        self.scripts.borrow_mut().clear();
    }

    fn job(&self) -> Result<&JobModule, ModuleLoaderError> {
        self.job.get().ok_or_else(|| refused("an isolate without a job imports nothing".into()))
    }

    fn resolve_for_job(&self, specifier: &str) -> Result<Url, ModuleLoaderError> {
        match specifier {
            RUNTIME => return Ok(Url::parse(RUNTIME_URL).expect("a constant URL")),
            SCOPE_URL => return Ok(Url::parse(SCOPE_URL).expect("a constant URL")),
            _ => {}
        }
        let job = self.job()?;
        let allowed = job.adaptors.iter().any(|adaptor| {
            specifier == adaptor || specifier.strip_prefix(adaptor.as_str()).is_some_and(|rest| rest.starts_with('/'))
        });
        if !allowed {
            return Err(refused(format!(
                "module blacklisted: {specifier}. A job can import only its adaptors ({})",
                job.adaptors.join(", ")
            )));
        }
        if self.pack.get().is_some_and(|pack| pack.entries.contains_key(specifier)) {
            return Url::parse(&format!("{ADAPTOR_URL}{specifier}")).map_err(JsErrorBox::from_err);
        }
        self.packages.resolve_for_job(specifier)
    }

    /// Refuses a job that imports what it must not. Asking [`ModuleLoader::resolve`] is not enough: modules that the
    /// runtime keeps ready, as `node:fs`, are linked to an `import` declaration without the loader's consent.
    fn check_imports(&self, job: &JobModule) -> Result<(), ModuleLoaderError> {
        let parsed = deno_ast::parse_module(deno_ast::ParseParams {
            specifier: job.url.clone(),
            text: job.source.clone(),
            media_type: deno_ast::MediaType::JavaScript,
            capture_tokens: false,
            scope_analysis: false,
            maybe_syntax: None,
        })
        .map_err(|error| refused(error.to_string()))?;
        module_imports(&parsed).fixed.iter().try_for_each(|specifier| self.resolve_for_job(specifier).map(drop))
    }

    /// Source of the module that hands over an adaptor of the pack. It names only what the job mentions, because
    /// reading an export evaluates what it needs.
    fn hand_over(&self, specifier: &str) -> Option<String> {
        let entry = self.pack.get()?.entries.get(specifier)?;
        let job = &self.job.get()?.source;
        let whole_namespace = job.contains("* as") || job.contains("import(");
        let mut constants = format!("const $ = globalThis.__fnhostAdaptor({})", entry.module);
        let mut exports = String::new();
        for (index, name) in entry.exports.iter().enumerate() {
            if whole_namespace || name == "execute" || mentions(job, name) {
                let quoted = serde_json::to_string(name).expect("a string is JSON");
                constants.push_str(&format!(", $_{index} = $[{quoted}]"));
                exports.push_str(&format!("$_{index} as {quoted}, "));
            }
        }
        Some(format!("{constants}; export {{ {exports} }};"))
    }

    fn module_source(specifier: &Url, module: LoadedModule) -> ModuleSource {
        ModuleSource::new(
            ModuleType::from(module.module_type),
            ModuleSourceCode::String(module.source.into()),
            specifier,
            None,
        )
    }
}

impl ModuleLoader for JobLoader {
    fn resolve(
        &self,
        specifier: &str,
        referrer: &str,
        _kind: ResolutionKind,
    ) -> Result<ModuleSpecifier, ModuleLoaderError> {
        if referrer.starts_with(JOB_SCHEME) {
            return self.resolve_for_job(specifier);
        }
        if let Some(job) = self.job.get().filter(|job| specifier == job.url.as_str()) {
            return Ok(job.url.clone());
        }
        if let Ok(url) = Url::parse(specifier)
            && (matches!(url.scheme(), "node" | "ext" | "fnhost") || referrer == REQUIRE_REFERRER)
        {
            return Ok(url);
        }
        // `require` of an ES module has no referrer: what it asks for is a URL already.
        let referrer = Url::parse(referrer).or_else(|_| Url::parse(specifier)).map_err(JsErrorBox::from_err)?;
        self.packages.resolve(specifier, &referrer)
    }

    fn load(
        &self,
        specifier: &ModuleSpecifier,
        referrer: Option<&ModuleLoadReferrer>,
        options: ModuleLoadOptions,
    ) -> ModuleLoadResponse {
        let text = |source: Arc<str>| {
            ModuleLoadResponse::Sync(Ok(ModuleSource::new(
                ModuleType::JavaScript,
                ModuleSourceCode::String(source.into()),
                specifier,
                None,
            )))
        };
        if let Some(job) = self.job.get().filter(|job| *specifier == job.url) {
            return match self.check_imports(job) {
                Ok(()) => text(job.source.clone()),
                Err(error) => ModuleLoadResponse::Sync(Err(error)),
            };
        }
        match specifier.as_str() {
            RUNTIME_URL => return text(RUNTIME_SOURCE.into()),
            SCOPE_URL => {
                let names: Vec<&str> = LANGUAGE_GLOBALS.iter().chain(HOST_GLOBALS).copied().collect();
                let names = serde_json::to_string(&names).expect("names are strings");
                return text(SCOPE_SOURCE.replace("NAMES", &names).into());
            }
            _ => {}
        }
        if let Some(adaptor) = specifier.as_str().strip_prefix(ADAPTOR_URL)
            && let Some(source) = self.hand_over(adaptor)
        {
            return text(source.into());
        }
        let Ok(path) = specifier.to_file_path() else {
            return ModuleLoadResponse::Sync(Err(refused(format!("cannot import {specifier}"))));
        };
        if !self.packages.may_load(&path) {
            return ModuleLoadResponse::Sync(Err(refused(format!(
                "cannot import {specifier}: it lies outside the installed adaptors"
            ))));
        }
        self.has_loaded_package.set(true);
        if let Some(module) = self.packages.loaded(specifier) {
            return ModuleLoadResponse::Sync(Ok(Self::module_source(specifier, module)));
        }
        let packages = self.packages.clone();
        let specifier = specifier.clone();
        let referrer = referrer.map(|referrer| referrer.specifier.clone());
        let json = matches!(options.requested_module_type, RequestedModuleType::Json);
        ModuleLoadResponse::Async(Box::pin(async move {
            let module = packages.load(&specifier, referrer.as_ref(), json).await?;
            Ok(Self::module_source(&specifier, module))
        }))
    }

    // The runtime's own scripts that its snapshot leaves out, such as most of the Node layer. Their text is part of
    // this program, so the specifier alone is the key; a pack belongs to one build.
    fn get_code_cache(&self, specifier: &ModuleSpecifier, _source: &str) -> Option<SourceCodeCacheInfo> {
        self.scripts.borrow_mut().push(specifier.as_str().to_owned());
        let data = self.caches.get()?.get(specifier.as_str()).map(Cow::from);
        // Without data, or with data that V8 does not accept, an answer asks for a new cache.
        Some(SourceCodeCacheInfo { hash: 0, data })
    }

    fn code_cache_ready(
        &self,
        specifier: ModuleSpecifier,
        _hash: u64,
        code_cache: &[u8],
    ) -> Pin<Box<dyn Future<Output = ()>>> {
        if let Some(caches) = self.caches.get() {
            caches.put(specifier.as_str(), code_cache.into());
        }
        Box::pin(async {})
    }
}

/// Whether `name` stands in `text` as a word.
fn mentions(text: &str, name: &str) -> bool {
    let part_of_word = |c: char| c == '_' || c == '$' || c.is_alphanumeric();
    text.match_indices(name)
        .any(|(at, _)| !text[..at].ends_with(part_of_word) && !text[at + name.len()..].starts_with(part_of_word))
}
