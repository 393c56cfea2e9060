//! Jobs to run in this process, without a server.

use std::sync::Arc;

use fnhost::compile::{self, Adaptor, Compiled, Dialect};
use fnhost::isolate::{Host, Job, Limits, Network};

use crate::remote::Remote;

/// Jobs with the adaptor that each uses.
pub fn cases(remote: &Remote) -> [(&'static str, Option<&'static str>, String); 4] {
    [
        ("no adaptor", None, "export default [(state) => state];".to_owned()),
        ("language-common", Some("@openfn/language-common"), "fn(state => state);".to_owned()),
        ("language-http, nothing sent", Some("@openfn/language-http"), "fn(state => state);".to_owned()),
        ("language-http, one GET", Some("@openfn/language-http"), format!("get('{}');", remote.url())),
    ]
}

pub fn job(host: &Host, adaptor: Option<&str>, source: &str) -> Job {
    let specifiers: Vec<String> = adaptor.map(str::to_owned).into_iter().collect();
    let set = host.prepare(&specifiers).unwrap_or_else(|error| panic!("{adaptor:?}: {error}"));
    let compiled = match adaptor {
        Some(adaptor) => compiled(source, adaptor, &set.exports[adaptor]),
        None => compile_with(source, &[]),
    };
    Job {
        name: "job.js".into(),
        step: "job".into(),
        source: source.into(),
        compiled: Arc::new(compiled),
        adaptors: specifiers,
        limits: Limits::default(),
        network: Network::Open,
        test: false,
        hide: None,
        remove_from_state: vec!["configuration".into(), "response".into()],
        traceparent: None,
        tenant: None,
    }
}

pub fn compiled(source: &str, adaptor: &str, exports: &[String]) -> Compiled {
    compile_with(source, &[Adaptor { specifier: adaptor, exports: Some(exports) }])
}

fn compile_with(source: &str, adaptors: &[Adaptor]) -> Compiled {
    let options = compile::Options { file_name: "job.js", adaptors, dialect: Dialect::Module, extra_globals: &[] };
    compile::compile(source, &options).unwrap_or_else(|error| panic!("{error}"))
}
