//! temporary
use std::process::ExitCode;
use std::sync::Arc;
/// Run
#[derive(clap::Args, Debug)]
pub struct Args { job: std::path::PathBuf, #[arg(short)] adaptors: Vec<String>, #[arg(long)] store: std::path::PathBuf, #[arg(short,default_value="{}")] state: String, #[arg(short,default_value_t=1)] n: usize, #[arg(short='S')] stats: bool, #[arg(long, default_value_t=500)] memory: usize, #[arg(long, default_value_t=10000)] timeout: u64}
pub fn run(args: Args) -> ExitCode {
    crate::isolate::platform::init();
    let src = std::fs::read_to_string(&args.job).unwrap();
    let host = crate::isolate::Host::new(crate::isolate::HostOptions { store: args.store.clone(), ..Default::default() });
    let set = host.prepare(&args.adaptors).unwrap();
    for _ in 0..args.n {
    let ad: Vec<_> = args.adaptors.iter().map(|a| crate::compile::Adaptor { specifier: a, exports: set.exports.get(a).map(|v| v.as_slice()) }).collect();
    let compiled = match crate::compile::compile(&src, &crate::compile::Options { file_name: "job.js", adaptors: &ad, dialect: Default::default(), extra_globals: &[] }) { Ok(c) => c, Err(e) => { eprintln!("{e}"); return ExitCode::FAILURE } };
    let job = crate::isolate::Job { name: "job.js".into(), step: "job".into(), source: src.clone().into(), compiled: Arc::new(compiled), adaptors: args.adaptors.clone(), limits: crate::isolate::Limits { heap: args.memory<<20, buffers: args.memory<<20, wall: std::time::Duration::from_millis(args.timeout), ..Default::default() }, network: Default::default(), remove_from_state: vec!["configuration".into()] };
    let out = host.run(job, args.state.clone(), Box::new(|l| eprintln!("[{}] {} {}", l.source, l.level, l.message)));
    if let Some(e) = &out.error { eprintln!("{e}\n{e:?}"); }
    if args.stats { eprintln!("{:?}", out.stats); }
    println!("{}", out.state.map(|s| s.chars().take(2000).collect::<String>()).unwrap_or_default());
    }
    host.save_packs();
    ExitCode::SUCCESS
}
