//! What goes into an image: a project's files without its secrets, and the adaptors that its jobs use.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use deno_npm::NpmSystemInfo;
use serde_json::json;
use tempfile::TempDir;

use super::super::check;
use super::super::exit::{Exit, Failure};
use super::super::input::JobFile;
use super::super::prepare::short;
use super::{Args, progress};
use crate::adaptor::layout::Plan;
use crate::adaptor::lockfile::{Lockfile, PackageId};
use crate::adaptor::progress::{self as installing, Progress, Silent};
use crate::adaptor::{AdaptorSpec, InstallOptions, Store, install};
use crate::image::{PROJECT, image_name, layer};
use crate::isolate::{Host, HostOptions, LocalAdaptor, hash_seed};
use crate::model::StepKind;
use crate::project::{Inline, PROJECT_FILES, Parts, Project};

/// What is not an adaptor.
pub struct Contents {
    /// What the image is called if nobody says otherwise.
    pub title: String,
    /// Where the project is.
    pub dir: PathBuf,
    /// Where people would say that it is.
    shown_dir: PathBuf,
    /// Path in the project → text.
    pub files: BTreeMap<PathBuf, String>,
    /// Variables that must be set when the container starts.
    pub variables: BTreeSet<String>,
    /// Those of them that have a default here, which is not in the image.
    pub defaults_left_out: BTreeSet<String>,
    /// Files with credentials that must be there when the container starts.
    pub secret_files: BTreeSet<PathBuf>,
    project: Project,
    inline: BTreeMap<String, Inline>,
    /// The adaptors that a job uses, for each set of them.
    adaptors: Vec<Vec<AdaptorSpec>>,
    /// Of a project that was made for one job.
    _temporary: Option<TempDir>,
}

impl Contents {
    pub fn of(args: &Args) -> Result<Self, Failure> {
        match &args.job {
            Some(job) => Self::of_job(args, job),
            None => Self::of_project(&args.dir),
        }
    }

    fn of_project(dir: &Path) -> Result<Self, Failure> {
        if !PROJECT_FILES.iter().any(|name| dir.join(name).exists()) {
            return Err(Failure::usage(format!(
                "there is no project in {}: name a directory with a project.yaml in it, or give a job with --job",
                dir.display()
            )));
        }
        let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
        let title = absolute.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self::read(dir, dir, title)
    }

    /// A project of one job, which runs on each message to the inbox.
    fn of_job(args: &Args, path: &Path) -> Result<Self, Failure> {
        let job = JobFile::read(path)?;
        let temporary =
            tempfile::tempdir().map_err(|error| Failure::host(format!("cannot make a directory: {error}")))?;
        let adaptors: Vec<String> = args.adaptor.iter().map(ToString::to_string).collect();
        let mut definition = json!({ "trigger": "inbox", "expression": format!("file://{}", job.name) });
        match &adaptors[..] {
            [] => {}
            [adaptor] => definition["adaptor"] = adaptor.as_str().into(),
            several => definition["adaptors"] = several.into(),
        }
        let mut project = json!({ "jobs": {}, "triggers": { "inbox": { "criteria": {} } } });
        if let Some(variable) = &args.credential_env {
            definition["credential"] = "credential".into();
            project["credentials"] = json!({ "credential": format!("${{{variable}}}") });
        }
        project["jobs"][&job.step] = definition;
        let write = |name: &str, text: &str| std::fs::write(temporary.path().join(name), text);
        write("project.json", &format!("{project:#}\n"))
            .and_then(|()| write(&job.name, &job.source))
            .map_err(|error| Failure::host(format!("cannot write to {}: {error}", temporary.path().display())))?;
        let contents = Self::read(temporary.path(), &job.directory, job.step)?;
        Ok(Self { _temporary: Some(temporary), ..contents })
    }

    fn read(dir: &Path, shown_dir: &Path, title: String) -> Result<Self, Failure> {
        let parts = Project::parts(dir, &|name| std::env::var(name).ok())
            .map_err(|broken| Failure::usage(format!("the project cannot be made an image\n{broken}")))?;
        for warning in &parts.warnings {
            eprintln!("{}", warning.render("warning"));
        }
        refuse_secrets(&parts)?;
        let Parts { project, inline, files, secret_files, variables, defaults_left_out, .. } = parts;
        let title = image_name(project.name.as_ref().unwrap_or(&title));
        let adaptors = adaptor_sets(&project)?;
        // The packs of an image are the same each time, and so is the seed that they are good for. It does not depend on the
        // jobs: an edit of one leaves the packs as they are.
        let names: BTreeSet<_> = adaptors.iter().flatten().map(ToString::to_string).collect();
        hash_seed::derive(&format!("{title} {names:?}"));
        let (dir, shown_dir) = (dir.to_owned(), shown_dir.to_owned());
        Ok(Self {
            title,
            dir,
            shown_dir,
            files,
            variables,
            defaults_left_out,
            secret_files,
            project,
            inline,
            adaptors,
            _temporary: None,
        })
    }

    pub fn require_sound_jobs(&self, adaptors: &Adaptors) -> Result<(), Failure> {
        check::require_sound_jobs(&self.shown_dir, &adaptors.store, self.project.clone(), &self.inline)
    }
}

/// Secrets shorter than this are words that may stand anywhere.
const SHORTEST_SECRET: usize = 8;

/// Fails if a file has the value of a credential in it, as when somebody tried a job with a password and left it there.
fn refuse_secrets(parts: &Parts) -> Result<(), Failure> {
    for secret in parts.project.secrets().iter().filter(|secret| secret.value.len() >= SHORTEST_SECRET) {
        if let Some((path, _)) = parts.files.iter().find(|(_, text)| text.contains(secret.value)) {
            return Err(Failure::usage(format!(
                "{} has the value of `{}` of the credential `{}` in it, so everyone who has the image could read it; use \
                 state.configuration instead",
                path.display(),
                secret.key,
                secret.credential
            )));
        }
    }
    Ok(())
}

fn adaptor_sets(project: &Project) -> Result<Vec<Vec<AdaptorSpec>>, Failure> {
    let mut sets = Vec::new();
    for step in project.workflows.iter().flat_map(|workflow| &workflow.steps) {
        let StepKind::Js(job) = &step.kind;
        let mut set = Vec::new();
        for name in &job.adaptors {
            let spec = AdaptorSpec::parse(name).map_err(|error| Failure::usage(error.to_string()))?;
            if spec.local_path().is_some() {
                return Err(Failure::usage(format!(
                    "the job `{}` uses an adaptor that lies in a directory, {name}: an image takes adaptors from \
                     registries, which may be your own (.npmrc)",
                    step.id
                )));
            }
            set.push(spec);
        }
        if !sets.contains(&set) {
            sets.push(set);
        }
    }
    Ok(sets)
}

/// The adaptors of the jobs, which are installed.
pub struct Adaptors {
    pub store: Store,
    /// What the jobs need, and no more.
    pub lock: Lockfile,
    pub plan: Plan,
    /// The directory that shows all that the plan holds, and maybe more.
    pub modules: PathBuf,
}

impl Adaptors {
    /// The adaptors that the store has. What is missing is installed, if it may be.
    pub fn find(args: &Args, contents: &Contents, ca_file: Option<PathBuf>) -> Result<Self, Failure> {
        let store = match &args.job {
            Some(job) => Store::for_job(job.parent().unwrap_or(Path::new(".")), args.repo_dir.clone()),
            None => Store::at(args.repo_dir.as_deref().unwrap_or(&contents.dir)),
        };
        let mut specs: Vec<AdaptorSpec> = contents.adaptors.iter().flatten().cloned().collect();
        specs.sort_by_key(ToString::to_string);
        specs.dedup();
        if let Some(found) = Self::installed(&store, &specs)? {
            return Ok(found);
        }
        let names = specs.iter().map(short).collect::<Vec<_>>();
        if args.no_install {
            let (all, names) = (names.join(", "), names.join(" "));
            return Err(Failure::host(format!("not all of {all} are installed; run: fnhost install {names}")));
        }
        progress(&format!("installing {}", names.join(", ")));
        let options = InstallOptions { npmrc_dir: Some(contents.shown_dir.clone()), ca_file, ..Default::default() };
        let bar: Box<dyn Progress> =
            if std::io::stderr().is_terminal() { installing::on_stderr() } else { Box::new(Silent) };
        install(&store, &specs, &options, bar.as_ref()).map_err(|error| {
            let hint = error.hint().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
            Failure::host(format!("cannot install {}: {}{hint}", names.join(", "), error.explain()))
        })?;
        drop(bar);
        let found = Self::installed(&store, &specs)?;
        found.ok_or_else(|| Failure::host(format!("{} is changed by somebody else; try again", store.root().display())))
    }

    /// None if something is not in the lock, or not as the lock has it.
    fn installed(store: &Store, specs: &[AdaptorSpec]) -> Result<Option<Self>, Failure> {
        let lock = Lockfile::load(&store.lock_path()).map_err(|error| Failure::host(error.to_string()))?;
        let Some(lock) = lock.unwrap_or_default().part(specs) else { return Ok(None) };
        let plan = Plan::new(&lock, NpmSystemInfo::default());
        let modules = store.node_modules();
        let modules = modules.canonicalize().unwrap_or(modules);
        if !plan.missing(&modules).is_empty() {
            return Ok(None);
        }
        Ok(Some(Self { store: store.clone(), lock, plan, modules }))
    }

    /// What saves the first start its time, by the names of the files: the pack of all adaptors, which a server loads
    /// together, or if they cannot be packed together, those of each job.
    pub fn packs(&self, contents: &Contents) -> Result<Vec<(String, Vec<u8>)>, Failure> {
        let host = self.host();
        let specifiers = |set: &[AdaptorSpec]| -> Vec<String> {
            let ids = set.iter().filter_map(|spec| self.lock.resolve(spec));
            ids.filter_map(|id| self.plan.specifier(id)).collect()
        };
        let pack = |specifiers: &[String]| {
            progress(&format!("packing {}", specifiers.join(", ")));
            let modified = layer::MODIFIED * 1_000_000_000;
            host.pack_for(specifiers, Path::new(PROJECT), modified).map_err(|error| Failure {
                exit: Exit::of(&error),
                message: format!("cannot load {}: {error}", specifiers.join(", ")),
            })
        };
        let sets: Vec<_> = contents.adaptors.iter().map(|set| specifiers(set)).filter(|set| !set.is_empty()).collect();
        let mut packs = BTreeMap::new();
        if !sets.is_empty() {
            packs.extend(pack(&sets.concat())?);
        }
        if packs.is_empty() {
            for set in &sets {
                packs.extend(pack(set)?);
            }
        }
        if !packs.is_empty() {
            let (name, seed) = hash_seed::file();
            packs.insert(name.to_owned(), seed.into_bytes());
        }
        Ok(packs.into_iter().collect())
    }

    /// A host on these adaptors, under the names that they have in the image: here there may be others with the same.
    fn host(&self) -> Host {
        let place = |id: &PackageId| {
            let (_, dir, _) = self.plan.packages().find(|(other, ..)| *other == id)?;
            Some(LocalAdaptor { specifier: self.plan.specifier(id)?, dir: self.modules.join(dir) })
        };
        let local_adaptors = self.lock.requests.values().filter_map(place).collect();
        let store = self.modules.parent().unwrap_or(self.store.root()).to_owned();
        Host::new(HostOptions { store, local_adaptors, ..Default::default() })
    }
}
