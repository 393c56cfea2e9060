//! Node's view of the installed packages: how a specifier finds a file, and how that file becomes an ES module.
//!
//! Built once per process and shared by every isolate. Resolution and translation (CommonJS wrapped as ESM) depend
//! only on the files in the adaptor store, which do not change under a running process, so both are remembered here
//! and a second isolate pays for neither.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use deno_core::url::Url;
use deno_core::{FastString, ModuleType};
use deno_error::JsErrorBox;
use deno_resolver::cache::ParsedSourceCache;
use deno_resolver::cjs::analyzer::{DenoAstModuleExportAnalyzer, DenoCjsCodeAnalyzer, NullNodeAnalysisCache};
use deno_resolver::cjs::{CjsTracker, IsCjsResolutionMode};
use deno_resolver::loader::{DenoNpmModuleLoader, LoadedModuleSource, NpmModuleLoader, RequestedModuleType};
use deno_resolver::npm::{
    ByonmNpmResolverCreateOptions, CreateInNpmPkgCheckerOptions, DenoInNpmPackageChecker, NpmResolver,
    NpmResolverCreateOptions,
};
use deno_runtime::deno_node::{NodeExtInitServices, NodeRequireLoader};
use deno_runtime::deno_permissions::PermissionsContainer;
use node_resolver::analyze::{CjsModuleExportAnalyzer, NodeCodeTranslator, NodeCodeTranslatorMode};
use node_resolver::cache::{NodeResolutionSys, NodeResolutionThreadLocalCache};
use node_resolver::errors::{NodeResolveError, PackageJsonLoadError};
use node_resolver::{
    DenoIsBuiltInNodeModuleChecker, NodeConditionOptions, NodeResolution, NodeResolutionKind, NodeResolver,
    NodeResolverOptions, PackageJsonResolver, PackageJsonThreadLocalCache, ResolutionMode, UrlOrPath,
};
use sys_traits::impls::RealSys;

/// The file system as the Node layer sees it.
pub type Sys = RealSys;
type Resolver = NodeResolver<DenoInNpmPackageChecker, DenoIsBuiltInNodeModuleChecker, NpmResolver<Sys>, Sys>;
type Tracker = CjsTracker<DenoInNpmPackageChecker, Sys>;

/// Services the Node layer of an isolate is given.
pub type NodeServices = NodeExtInitServices<DenoInNpmPackageChecker, NpmResolver<Sys>, Sys>;

/// A module ready for V8.
#[derive(Clone)]
pub struct LoadedModule {
    pub source: Arc<str>,
    pub module_type: ModuleKind,
}

/// What V8 should take a source for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModuleKind {
    JavaScript,
    Json,
}

impl From<ModuleKind> for ModuleType {
    fn from(kind: ModuleKind) -> Self {
        match kind {
            ModuleKind::JavaScript => ModuleType::JavaScript,
            ModuleKind::Json => ModuleType::Json,
        }
    }
}

/// An adaptor that lies outside the store, named by its path: one that somebody is working on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalAdaptor {
    /// What a job imports.
    pub specifier: String,
    /// The package's directory.
    pub dir: PathBuf,
}

/// The packages under one adaptor store, and adaptors beside it.
pub struct Packages {
    /// Directory whose `node_modules` a job's bare imports are looked up in.
    root: PathBuf,
    local: Vec<LocalAdaptor>,
    /// Directories files may be loaded from, links resolved.
    readable: Vec<PathBuf>,
    resolver: Arc<Resolver>,
    pkg_json: Arc<PackageJsonResolver<Sys>>,
    tracker: Arc<Tracker>,
    loader: DenoNpmModuleLoader<Sys>,
    resolutions: RwLock<HashMap<(String, String), Url>>,
    modules: RwLock<HashMap<Url, LoadedModule>>,
    /// Paths that `require` asked for and whether it may read them. Each answer costs a system call per directory.
    required: RwLock<HashMap<PathBuf, bool>>,
}

/// How many answers about paths are kept. More means that a package makes up paths as it goes.
const MAX_REQUIRED: usize = 50_000;

impl Packages {
    /// Services for the store at `root` and the adaptors of `local`, which win over the store's.
    pub fn new(root: &Path, local: &[LocalAdaptor]) -> Self {
        let canonical = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let root = canonical(root);
        let local: Vec<LocalAdaptor> =
            local.iter().map(|adaptor| LocalAdaptor { dir: canonical(&adaptor.dir), ..adaptor.clone() }).collect();
        // A local adaptor finds its dependencies where Node would: in any `node_modules` above it.
        let readable = std::iter::once(root.join("node_modules"))
            .chain(local.iter().flat_map(|adaptor| {
                let above = adaptor.dir.ancestors().skip(1).map(|dir| dir.join("node_modules"));
                std::iter::once(adaptor.dir.clone()).chain(above.filter(|dir| dir.is_dir()))
            }))
            .collect();
        let node_sys = NodeResolutionSys::new(RealSys, Some(Arc::new(NodeResolutionThreadLocalCache)));
        let pkg_json = Arc::new(PackageJsonResolver::new(RealSys, Some(Arc::new(PackageJsonThreadLocalCache))));
        let in_npm = DenoInNpmPackageChecker::new(CreateInNpmPkgCheckerOptions::Byonm);
        let npm = NpmResolver::<Sys>::new(NpmResolverCreateOptions::Byonm(ByonmNpmResolverCreateOptions {
            root_node_modules_dir: Some(root.join("node_modules")),
            search_stop_dir: None,
            sys: node_sys.clone(),
            pkg_json_resolver: pkg_json.clone(),
        }));
        let conditions = |names: &[&'static str]| Some(names.iter().map(|name| Cow::Borrowed(*name)).collect());
        let resolver = Arc::new(NodeResolver::new(
            in_npm.clone(),
            DenoIsBuiltInNodeModuleChecker,
            npm.clone(),
            pkg_json.clone(),
            node_sys,
            NodeResolverOptions {
                // Node's conditions, without "deno": adaptors are written for and tested on Node.
                conditions: NodeConditionOptions {
                    import_conditions_override: conditions(&["node", "import", "module-sync"]),
                    ..Default::default()
                },
                ..Default::default()
            },
        ));
        let tracker = Arc::new(CjsTracker::new(
            in_npm.clone(),
            pkg_json.clone(),
            IsCjsResolutionMode::ImplicitTypeCommonJs,
            Vec::new(),
        ));
        let analyzer = DenoCjsCodeAnalyzer::new(
            Arc::new(NullNodeAnalysisCache),
            tracker.clone(),
            Arc::new(DenoAstModuleExportAnalyzer::new(Arc::new(ParsedSourceCache::default()))),
        );
        let translator = Arc::new(NodeCodeTranslator::new(
            Arc::new(CjsModuleExportAnalyzer::new(
                analyzer,
                in_npm.clone(),
                resolver.clone(),
                npm,
                pkg_json.clone(),
                RealSys,
            )),
            NodeCodeTranslatorMode::ModuleLoader,
        ));
        let loader = NpmModuleLoader::new(tracker.clone(), in_npm, translator, RealSys);
        Self {
            root,
            local,
            readable,
            resolver,
            pkg_json,
            tracker,
            loader,
            resolutions: RwLock::default(),
            modules: RwLock::default(),
            required: RwLock::default(),
        }
    }

    /// Forgets what this thread knows of the files: they may have changed since.
    pub fn refresh() {
        NodeResolutionThreadLocalCache::clear();
        PackageJsonThreadLocalCache::clear();
    }

    /// Whether `require` may read `path`, links resolved: a link inside the store may lead out of it.
    fn may_require(&self, path: &Path) -> bool {
        if let Some(answer) = self.required.read().expect("required paths").get(path) {
            return *answer;
        }
        let real = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        let answer = self.may_load(&real);
        let mut required = self.required.write().expect("required paths");
        if required.len() >= MAX_REQUIRED {
            required.clear();
        }
        required.insert(path.to_owned(), answer);
        answer
    }

    /// A directory that an isolate may read: the one with the packages, if there are any.
    pub fn directory(&self) -> &Path {
        self.readable.iter().find(|directory| directory.is_dir()).unwrap_or(&self.readable[0])
    }

    /// Stands for every file that `require` may not read: nothing is ever put there.
    fn outside(&self) -> PathBuf {
        self.readable[0].join(".fnhost/outside")
    }

    /// Directories an isolate may read.
    pub fn readable(&self) -> &[PathBuf] {
        &self.readable
    }

    /// True for a file inside the store or a local adaptor. Links were resolved when the URL was made.
    pub fn may_load(&self, path: &Path) -> bool {
        self.readable.iter().any(|dir| path.starts_with(dir))
    }

    /// The adaptors outside the store.
    pub fn local(&self) -> &[LocalAdaptor] {
        &self.local
    }

    /// The directory that holds `node_modules`.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Resolves a package a job names: a local adaptor, or as if from a file in the store's root.
    pub fn resolve_for_job(&self, specifier: &str) -> Result<Url, JsErrorBox> {
        for adaptor in &self.local {
            let subpath = match specifier.strip_prefix(adaptor.specifier.as_str()) {
                Some("") => None,
                Some(rest) if rest.starts_with('/') => Some(&rest[1..]),
                _ => continue,
            };
            return self
                .resolver
                .resolve_package_subpath_from_deno_module(
                    &adaptor.dir,
                    subpath,
                    None,
                    ResolutionMode::Import,
                    NodeResolutionKind::Execution,
                )
                .map_err(JsErrorBox::from_err)?
                .into_url()
                .map_err(JsErrorBox::from_err);
        }
        let referrer = Url::from_file_path(self.root.join("job.mjs"))
            .map_err(|()| JsErrorBox::generic("the store's path is not absolute"))?;
        self.resolve(specifier, &referrer)
    }

    /// Resolves an import in a package file. Built-in modules come back as `node:` URLs.
    pub fn resolve(&self, specifier: &str, referrer: &Url) -> Result<Url, JsErrorBox> {
        let key = (referrer.as_str().to_owned(), specifier.to_owned());
        if let Some(url) = self.resolutions.read().expect("resolution cache").get(&key) {
            return Ok(url.clone());
        }
        let url = self
            .try_endings(specifier, referrer)
            .and_then(|resolution| resolution.into_url())
            .map_err(JsErrorBox::from_err)?;
        self.resolutions.write().expect("resolution cache").insert(key, url.clone());
        Ok(url)
    }

    /// Resolves as [`Self::resolve`] does, without remembering.
    pub fn resolve_imported(&self, specifier: &str, referrer: &Url) -> Result<NodeResolution, Unresolved> {
        self.try_endings(specifier, referrer).map_err(Unresolved::new)
    }

    /// Adaptors were published that import `lodash/set`. Node refuses that in an ES module; OpenFn's runtime, which they
    /// were written for, adds what is missing.
    fn try_endings(&self, specifier: &str, referrer: &Url) -> Result<NodeResolution, NodeResolveError> {
        let resolve = |specifier: &str| {
            self.resolver.resolve(specifier, referrer, ResolutionMode::Import, NodeResolutionKind::Execution)
        };
        resolve(specifier).or_else(|error| match specifier.contains('/') {
            true => resolve(&format!("{specifier}.js")).map_err(|_| error),
            false => Err(error),
        })
    }

    /// Resolves what the file at `referrer` requires, as Node does: `exports` of packages, else files and directories
    /// with the endings that may be left out.
    pub fn resolve_required(&self, specifier: &str, referrer: &Url) -> Result<NodeResolution, Unresolved> {
        let file = referrer.to_file_path().map_err(|()| Unresolved::new(format!("{referrer} is no file")))?;
        let lead_to = |path: &Path| match required_path(path, is_directory(specifier)) {
            Some(path) => Ok(NodeResolution::Module(UrlOrPath::Path(path.canonicalize().unwrap_or(path)))),
            None => Err(Unresolved::required(specifier, &file)),
        };
        let path = Path::new(specifier);
        if path.is_absolute() || matches!(specifier.split('/').next(), Some("." | "..")) {
            return lead_to(&file.parent().unwrap_or(&file).join(path));
        }
        let error =
            match self.resolver.resolve(specifier, referrer, ResolutionMode::Require, NodeResolutionKind::Execution) {
                Ok(resolution) => return Ok(resolution),
                Err(error) => Unresolved::new(error),
            };
        match self.package_without_exports(specifier, &file) {
            Some(package) => lead_to(&package.join(subpath(specifier))),
            None if error.code == Unresolved::NOT_FOUND => Err(Unresolved::required(specifier, &file)),
            None => Err(error),
        }
    }

    /// The directory of the package that `specifier` begins with, if the package leaves all of its files open.
    fn package_without_exports(&self, specifier: &str, file: &Path) -> Option<PathBuf> {
        let name = &specifier[..specifier.len() - subpath(specifier).len()];
        let mut packages = file.ancestors().skip(1).map(|dir| dir.join("node_modules").join(name));
        let package = packages.find(|package| package.is_dir())?;
        let manifest = self.pkg_json.load_package_json(&package.join("package.json")).ok().flatten();
        manifest.is_none_or(|manifest| manifest.exports.is_none()).then_some(package)
    }

    /// Whether the file at `url` is CommonJS, given whether its text could be a script.
    pub fn is_cjs(&self, url: &Url, is_script: bool) -> Result<bool, JsErrorBox> {
        self.tracker
            .is_cjs_with_known_is_script(url, deno_ast::MediaType::from_specifier(url), is_script)
            .map_err(JsErrorBox::from_err)
    }

    /// The module at `url` if some isolate of this process has loaded it before.
    pub fn loaded(&self, url: &Url) -> Option<LoadedModule> {
        self.modules.read().expect("module cache").get(url).cloned()
    }

    /// Reads the file at `url` and makes it an ES module.
    pub async fn load(&self, url: &Url, referrer: Option<&Url>, json: bool) -> Result<LoadedModule, JsErrorBox> {
        let requested = if json { RequestedModuleType::Json } else { RequestedModuleType::None };
        let loaded =
            self.loader.load(Cow::Borrowed(url), referrer, &requested, None).await.map_err(JsErrorBox::from_err)?;
        let source: Arc<str> = match loaded.source {
            LoadedModuleSource::ArcStr(text) => text,
            LoadedModuleSource::String(text) => text.into(),
            LoadedModuleSource::ArcBytes(bytes) => String::from_utf8_lossy(&bytes).into(),
            LoadedModuleSource::Bytes(bytes) => String::from_utf8_lossy(&bytes).into(),
        };
        let module_type = if url.path().ends_with(".json") { ModuleKind::Json } else { ModuleKind::JavaScript };
        let module = LoadedModule { source, module_type };
        self.modules.write().expect("module cache").insert(url.clone(), module.clone());
        Ok(module)
    }

    /// What the Node layer of a new isolate needs.
    pub fn node_services(self: &Arc<Self>) -> NodeServices {
        NodeExtInitServices {
            node_require_loader: std::rc::Rc::new(RequireLoader(self.clone())),
            node_resolver: self.resolver.clone(),
            pkg_json_resolver: self.pkg_json.clone(),
            sys: RealSys,
        }
    }
}

/// The file that a path without `exports` in the way leads to.
fn required_path(path: &Path, directory: bool) -> Option<PathBuf> {
    let with_ending = |path: &Path| {
        let endings = ["", ".js", ".json", ".node"];
        let file = |ending: &&str| PathBuf::from(format!("{}{ending}", path.display()));
        endings.iter().map(file).find(|file| file.is_file())
    };
    let index = |directory: &Path| with_ending(&directory.join("index")).filter(|file| file.extension().is_some());
    let main = || {
        let manifest = std::fs::read(path.join("package.json")).ok()?;
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).ok()?;
        let main = path.join(manifest["main"].as_str().filter(|main| !main.is_empty())?);
        with_ending(&main).or_else(|| index(&main))
    };
    let file = if directory { None } else { with_ending(path) };
    file.or_else(main).or_else(|| index(path))
}

/// Whether a specifier means a directory and never a file.
fn is_directory(specifier: &str) -> bool {
    matches!(specifier.rsplit('/').next(), Some("" | "." | ".."))
}

/// What follows the name of the package in a specifier, without the slash.
fn subpath(specifier: &str) -> &str {
    let slashes = if specifier.starts_with('@') { 2 } else { 1 };
    specifier.splitn(slashes + 1, '/').nth(slashes).unwrap_or("")
}

/// Why a specifier leads nowhere: Node's code and words for it, which packages look at.
#[derive(Debug)]
pub struct Unresolved {
    pub code: String,
    pub message: String,
}

impl Unresolved {
    const NOT_FOUND: &str = "ERR_MODULE_NOT_FOUND";

    /// Takes the text of the resolver's errors apart, which begins with the code in brackets.
    fn new(error: impl std::fmt::Display) -> Self {
        let text = error.to_string();
        match text.strip_prefix('[').and_then(|text| text.split_once("] ")) {
            Some((code, message)) => Self { code: code.to_owned(), message: message.to_owned() },
            None => Self { code: Self::NOT_FOUND.to_owned(), message: text },
        }
    }

    fn required(specifier: &str, file: &Path) -> Self {
        let message = format!("Cannot find module '{specifier}'\nRequire stack:\n- {}", file.display());
        Self { code: "MODULE_NOT_FOUND".to_owned(), message }
    }
}

/// How `require` reads files: only inside the store.
struct RequireLoader(Arc<Packages>);

impl NodeRequireLoader for RequireLoader {
    fn ensure_read_permission<'a>(
        &self,
        _permissions: &mut PermissionsContainer,
        path: Cow<'a, Path>,
    ) -> Result<Cow<'a, Path>, JsErrorBox> {
        if self.0.may_require(&path) {
            return Ok(path);
        }
        // Resolution probes the parent directories for `node_modules`, and must go on: outside there is nothing.
        Ok(Cow::Owned(self.0.outside().join(path.strip_prefix("/").unwrap_or(&path))))
    }

    fn load_text_file_lossy(&self, path: &Path) -> Result<FastString, JsErrorBox> {
        if let Ok(path) = path.strip_prefix(self.0.outside()) {
            let message = format!("require may only read installed adaptors, not /{}", path.display());
            return Err(JsErrorBox::new("NotCapable", message));
        }
        let bytes = std::fs::read(path).map_err(JsErrorBox::from_err)?;
        Ok(FastString::from(String::from_utf8_lossy(&bytes).into_owned()))
    }

    fn is_maybe_cjs(&self, specifier: &Url) -> Result<bool, PackageJsonLoadError> {
        self.0.tracker.is_maybe_cjs(specifier, deno_ast::MediaType::from_specifier(specifier))
    }

    fn is_maybe_cjs_from_require(&self, specifier: &Url) -> Result<bool, PackageJsonLoadError> {
        self.0.tracker.is_maybe_cjs_from_require(specifier, deno_ast::MediaType::from_specifier(specifier))
    }
}
