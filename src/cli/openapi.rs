//! `fnhost openapi`: the description of the API, without a server.

use std::process::ExitCode;

use super::exit::Exit;
use super::output;
use crate::http;

/// Print the OpenAPI document of /api/v1
///
/// It is the one that a server gives at /api/v1/openapi.json.
#[derive(clap::Args, Debug)]
pub struct Args {}

pub fn run(_: Args) -> ExitCode {
    match output::print(http::openapi_document().as_bytes()) {
        Ok(()) => Exit::Completed.into(),
        Err(error) => {
            eprintln!("error: cannot print the document: {error}");
            Exit::Host.into()
        }
    }
}
