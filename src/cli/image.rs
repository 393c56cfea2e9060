//! `fnhost image`: a container image of a project, made of this very program and without a container runtime.
//!
//! Everything that can be wrong is found before the slow part: the project, its secrets, its jobs, the place to write to.

mod contents;
mod report;

use std::collections::BTreeMap;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory as _, ValueEnum};

use self::contents::{Adaptors, Contents};
use self::report::Report;
use super::exit::{Exit, Failure};
use super::{Cli, output, prepare};
use crate::adaptor::AdaptorSpec;
use crate::config;
use crate::image::compress::{Cache, Compression, Method};
use crate::image::config::Settings;
use crate::image::elf::Elf;
use crate::image::login::{self, Login};
use crate::image::push::{self, Destination, PushError, Pushed};
use crate::image::{Image, adaptors, archive, base, program_layer, project_layer, sbom};
use crate::isolate::read_certificates;

/// Make a container image of a project, without Docker
///
/// The image holds this program, the project, its adaptors as fnhost.lock names them, and nothing else: no Node, no
/// shell, no package manager. It runs as user 65532, on a read-only root if you like, and keeps its data in /data. The
/// same project and the same program give the same bytes, and so the same digest.
///
/// Values of credentials are never in an image. What the project takes from variables (${NAME}) or from files with
/// credentials has to be there when the container starts; at the end you are told what that is.
#[derive(clap::Args, Debug)]
#[command(after_long_help = EXAMPLES)]
#[command(group = clap::ArgGroup::new("destination").args(["output", "push"]).required(true).multiple(true))]
pub struct Args {
    /// The directory of the project
    #[arg(value_name = "DIR", default_value = ".", conflicts_with = "job")]
    dir: PathBuf,

    /// Instead of a project: a job, which runs on each message to the inbox
    #[arg(long, value_name = "FILE")]
    job: Option<PathBuf>,

    /// The adaptors of the job, such as http or common@3
    #[arg(short, long, value_name = "ADAPTOR", value_delimiter = ',', requires = "job")]
    adaptor: Vec<AdaptorSpec>,

    /// The variable that holds the job's credential, a JSON object, when the container runs
    #[arg(long, value_name = "NAME", requires = "job", value_parser = variable_name)]
    credential_env: Option<String>,

    /// Write the image here; - is stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// What to write
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Archive)]
    format: Format,

    /// Push the image to a registry: registry.example.org/name:tag
    #[arg(long, value_name = "NAME")]
    push: Option<String>,

    /// The image's name [default: that of --push, else the project's]
    #[arg(short, long, value_name = "NAME:TAG")]
    tag: Option<String>,

    /// A label of the image
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,

    /// A setting of the container, readable to all who have the image; no place for secrets
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = pair)]
    env: Vec<(String, String)>,

    /// How layers are compressed
    #[arg(long, value_name = "METHOD", value_enum, default_value_t = Method::Zstd)]
    compression: Method,

    /// How hard to compress: up to 22 for zstd (default 9), up to 9 for gzip (default 6)
    #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(u32).range(1..=22))]
    level: Option<u32>,

    /// When the image was made, in seconds since 1970
    #[arg(long, value_name = "SECONDS", env = "SOURCE_DATE_EPOCH", default_value_t = 0)]
    created: u64,

    /// Certificate authorities, a PEM file: for the registries, and in the image for its jobs
    #[arg(long, value_name = "FILE")]
    cafile: Option<PathBuf>,

    /// The user to log in to the registry as, with the password in FNHOST_REGISTRY_PASSWORD [default: what docker login
    /// has kept]
    #[arg(long, value_name = "USER", requires = "push")]
    user: Option<String>,

    /// Speak to the registry without TLS; those on this machine are spoken to so anyway, unless there is --cafile
    #[arg(long, requires = "push", conflicts_with = "cafile")]
    plain_http: bool,

    /// Look for adaptors here instead of in the project or ~/.local/share/fnhost
    #[arg(long, value_name = "DIR", env = "FNHOST_REPO_DIR")]
    repo_dir: Option<PathBuf>,

    /// Fail if an adaptor is not installed, instead of installing it
    #[arg(long)]
    no_install: bool,

    /// Compress everything anew, without the layers that were kept
    #[arg(long)]
    no_cache: bool,

    /// Print a report as JSON on stdout
    #[arg(long)]
    json: bool,
}

/// What the file at `--output` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One tar, for docker load, podman load and skopeo: an OCI layout and a Docker archive at once
    Archive,
    /// A directory in OCI's layout
    Directory,
}

const EXAMPLES: &str = "\
Examples:
  An image of the project in a directory, for Docker or Podman:
    fnhost image ./project -o image.tar
    docker load -i image.tar
    docker run --read-only --tmpfs /tmp -v data:/data -p 4001:4001 --env-file .env project:latest

  Straight into a registry, with the login that `docker login` has kept:
    fnhost image ./project --push registry.example.org/orders:1.4

  Of a job alone. It runs on each message to the inbox; its credential comes when the container runs:
    fnhost image --job job.js --adaptor http --credential-env CRED -o image.tar
    docker run -v data:/data -p 4001:4001 -e CRED='{\"baseUrl\":\"https://example.org\",\"token\":\"…\"}' job:latest

  As small as it gets, and for tools that do not know zstd:
    fnhost image ./project -o image.tar --level 19
    fnhost image ./project -o image.tar --compression gzip

  For a look inside, as files:
    fnhost image ./project -o layout --format directory

What runs in the container is `fnhost serve /project`; settings are those of fnhost serve, from the environment. Layers,
from the bottom: libraries, fnhost, adaptors, project. A new version of the project is a few kilobytes.

Exit codes:
    0  the image was written, and pushed if that was asked for
    2  bad usage, or a project that cannot be served or holds secrets
    3  a job does not compile
    5  the image cannot be made, written or pushed";

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".into()),
    }
}

fn variable_name(text: &str) -> Result<String, String> {
    let is_name = !text.starts_with(|c: char| c.is_ascii_digit())
        && !text.is_empty()
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if is_name {
        Ok(text.to_owned())
    } else {
        Err("name a variable, such as CRED; its value is not wanted here".into())
    }
}

pub fn run(args: &Args) -> ExitCode {
    match image(args) {
        Ok(()) => Exit::Completed.into(),
        Err(failure) => {
            eprintln!("error: {failure}");
            failure.exit.into()
        }
    }
}

fn image(args: &Args) -> Result<(), Failure> {
    let compression = compression(args)?;
    let contents = Contents::of(args)?;
    let name = name(args, &contents)?;
    let ca_file = prepare::ca_file(args.cafile.as_deref(), |warning| eprintln!("warning: {warning}"))?;
    let destination = args.push.as_deref().map(|push| destination(args, push, ca_file.as_deref())).transpose()?;
    check_output(args)?;
    let settings = settings(args, &contents)?;
    let adaptors = Adaptors::find(args, &contents, ca_file)?;
    contents.require_sound_jobs(&adaptors)?;

    let image = build(args, &contents, &adaptors, &settings, compression)?;
    if let Some(path) = &args.output {
        write(&image, &name, args.format, path)?;
    }
    let pushed = destination.map(|destination| push(&destination, &image)).transpose()?;
    let report = Report { name: &name, image: &image, contents: &contents, output: args.output.as_deref(), pushed };
    eprint!("{}", report.for_people());
    if args.json {
        output::print(report.for_programs().as_bytes())
            .map_err(|error| Failure::host(format!("cannot print: {error}")))?;
    }
    Ok(())
}

fn compression(args: &Args) -> Result<Compression, Failure> {
    let method = args.compression;
    let level = args.level.unwrap_or(method.usual_level());
    if level > method.highest_level() {
        let highest = method.highest_level();
        return Err(Failure::usage(format!("the highest --level of this compression is {highest}, not {level}")));
    }
    Ok(Compression { method, level })
}

/// The image's full name: a tag is part of it.
fn name(args: &Args, contents: &Contents) -> Result<String, Failure> {
    let asked = args.tag.as_ref().or(args.push.as_ref());
    let name = asked.cloned().unwrap_or_else(|| contents.title.clone());
    push::reference(&name).map_err(|error| Failure::usage(error.to_string()))?;
    let has_tag = name.rsplit_once('/').map_or(name.as_str(), |(_, last)| last).contains(':');
    Ok(if has_tag { name } else { format!("{name}:latest") })
}

fn destination(args: &Args, name: &str, ca_file: Option<&Path>) -> Result<Destination, Failure> {
    let reference = push::reference(name).map_err(|error| Failure::usage(error.to_string()))?;
    let login = match &args.user {
        Some(user) => {
            let password = std::env::var("FNHOST_REGISTRY_PASSWORD").map_err(|_| {
                Failure::usage("--user goes with a password in the variable FNHOST_REGISTRY_PASSWORD, which is not set")
            })?;
            Login::Password { user: user.clone(), password }
        }
        None => login::find(reference.registry()).map_err(|error| Failure::usage(error.to_string()))?,
    };
    let authorities = ca_file.map(read_certificates).transpose().map_err(Failure::usage)?.unwrap_or_default();
    let plain_http = args.plain_http || (args.cafile.is_none() && push::is_local(&reference));
    Destination::new(reference, login, plain_http, &authorities).map_err(|error| Failure::usage(error.to_string()))
}

fn check_output(args: &Args) -> Result<(), Failure> {
    let Some(path) = &args.output else { return Ok(()) };
    if path == Path::new("-") {
        return match (args.format, args.json) {
            (Format::Archive, false) => Ok(()),
            (Format::Archive, true) => Err(Failure::usage("stdout can take the image or the report, not both")),
            (Format::Directory, _) => Err(Failure::usage("a directory cannot be written to stdout")),
        };
    }
    match args.format {
        Format::Archive => output::check_writable(path).map_err(Failure::usage),
        Format::Directory if archive::is_free(path) => Ok(()),
        Format::Directory => Err(Failure::usage(format!(
            "cannot write a layout to {}: something else is there; name a directory that is new or empty",
            path.display()
        ))),
    }
}

/// What the container is told, where it is not the same for all.
fn settings(args: &Args, contents: &Contents) -> Result<Settings, Failure> {
    let program = Cli::command();
    let server = program.find_subcommand("serve").cloned().unwrap_or_default();
    let shared = config::shared_settings(&server, &contents.dir).map_err(|error| Failure::usage(error.to_string()))?;
    let mut environment: BTreeMap<String, String> = args.env.iter().cloned().collect();
    if let Some(name) = environment.keys().find(|name| contents.variables.contains(*name)) {
        return Err(Failure::usage(format!(
            "--env {name} would put a part of a credential into the image, where everyone who has it can read it; set \
             {name} where the container is started"
        )));
    }
    if args.cafile.is_some() {
        environment.entry("FNHOST_CAFILE".into()).or_insert_with(|| base::CA_BUNDLE.into());
    }
    let port = environment.get("PORT").or_else(|| shared.get("PORT")).map_or("4001", String::as_str);
    let port = port.parse().map_err(|_| Failure::usage(format!("the port {port} is not a number from 0 to 65535")))?;
    let mut labels = BTreeMap::from([("org.opencontainers.image.title".to_owned(), contents.title.clone())]);
    labels.insert("org.fnhost.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    labels.extend(args.labels.iter().cloned());
    Ok(Settings { port, environment, labels, created: args.created })
}

fn build(
    args: &Args,
    contents: &Contents,
    found: &Adaptors,
    settings: &Settings,
    compression: Compression,
) -> Result<Image, Failure> {
    let failed = |error: &dyn std::error::Error| Failure::host(error.to_string());
    let ca_bundle = args.cafile.as_ref().map(std::fs::read).transpose().map_err(|error| failed(&error))?;
    let path = std::env::current_exe().map_err(|error| Failure::host(format!("cannot find the program: {error}")))?;
    let program = std::fs::read(&path)
        .map_err(|error| Failure::host(format!("cannot read the program, {}: {error}", path.display())))?;
    let elf = Elf::parse(&program, &path).map_err(|error| failed(&error))?;
    let libraries = base::libraries(&elf).map_err(|error| failed(&error))?;
    let sbom = sbom::document(&contents.title, &libraries, &found.plan, &found.modules);
    let packs = found.packs(contents)?;
    let adaptors =
        adaptors::tree(&found.lock, &found.plan, &found.modules, packs, sbom).map_err(|error| failed(&error))?;
    let layers = [
        ("libraries", base::tree(&libraries, ca_bundle)),
        ("fnhost", program_layer(elf.stripped())),
        ("adaptors", adaptors),
        ("project", project_layer(&contents.files)),
    ];
    let cache = if args.no_cache { None } else { Cache::of_user() };
    progress("compressing the layers");
    Image::build(&layers, settings, compression, cache.as_ref()).map_err(|error| failed(&error))
}

fn write(image: &Image, name: &str, format: Format, path: &Path) -> Result<(), Failure> {
    let written = match format {
        Format::Archive if path == Path::new("-") => {
            archive::write_tar(image, name, BufWriter::new(io::stdout().lock()))
        }
        Format::Archive => output::write_file(path, |file| archive::write_tar(image, name, BufWriter::new(file))),
        Format::Directory => archive::write_directory(image, name, path),
    };
    written.map_err(|error| Failure::host(format!("cannot write the image to {}: {error}", path.display())))
}

fn push(destination: &Destination, image: &Image) -> Result<Pushed, Failure> {
    let failed = |error: &dyn std::error::Error| Failure::host(error.to_string());
    progress(&format!("pushing to {}", destination.registry()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| failed(&error))?;
    runtime.block_on(destination.push(image)).map_err(|error: PushError| failed(&error))
}

/// What takes a moment.
fn progress(what: &str) {
    eprintln!("{what} …");
}
