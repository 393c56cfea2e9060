//! `fnhost token`: who may use a server.
//!
//! One process has the store at a time. So tokens are managed in the store itself while no server runs, which is how the
//! first one is made, and otherwise through the API of the server that does.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{Method, Request, StatusCode, header};
use deno_runtime::deno_fetch::{self, CreateHttpClientOptions, ReqBody};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::exit::{Exit, Failure};
use super::output;
use crate::http::{Access, Scope};
use crate::store::Store;
use crate::store::sqlite::{SqliteOptions, SqliteStore};

/// Make, list and revoke the tokens that let people and programs use a server
///
/// While a server runs, name it with --url, and a token with the scope `admin` in FNHOST_TOKEN. While none runs, the
/// tokens are managed in the project's data directory.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    command: Command,

    /// Address of the server
    #[arg(long, global = true, value_name = "URL", env = "FNHOST_URL")]
    url: Option<String>,

    /// A token with the scope `admin`, for the server
    #[arg(long, global = true, value_name = "TOKEN", env = "FNHOST_TOKEN", hide_env_values = true)]
    token: Option<String>,

    /// Directory of the project, if no server runs
    #[arg(long, global = true, value_name = "DIR", env = "PROJECT_DIR", default_value = ".")]
    project: PathBuf,

    /// Directory of the database [default: .fnhost in the project]
    #[arg(long, global = true, value_name = "DIR", env = "FNHOST_DATA_DIR")]
    data_dir: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  fnhost token create dashboard --scope read
  fnhost token create clinic-7 --scope inbox:patients --url https://fnhost.example.org
  fnhost token list
  fnhost token revoke 019a3f0e-6b1d-7c55-a4d2-0e9b1c7d8f21";

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Make a token; it is printed this once
    Create {
        /// Whose it is, for people
        name: String,
        /// What it allows: read, write, admin, inbox, inbox:TOPIC or metrics
        #[arg(long = "scope", required = true, value_delimiter = ',', value_parser = str::parse::<Scope>)]
        scopes: Vec<Scope>,
    },
    /// List all tokens, without the tokens themselves
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Revoke a token
    Revoke {
        /// Its id, as `fnhost token list` prints it
        id: String,
    },
}

pub fn run(args: Args) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(manage(&args)),
        Err(error) => Err(Failure::host(format!("cannot start: {error}"))),
    };
    let printed =
        done.and_then(|text| output::print(text.as_bytes()).map_err(|error| Failure::host(error.to_string())));
    match printed {
        Ok(()) => Exit::Completed.into(),
        Err(failure) => {
            eprintln!("error: {failure}");
            failure.exit.into()
        }
    }
}

/// Gives what goes to stdout.
async fn manage(args: &Args) -> Result<String, Failure> {
    match &args.url {
        Some(url) => Remote::new(url, args.token.as_deref())?.manage(&args.command).await,
        None => {
            let store = open(args)?;
            let done = manage_local(store.clone(), &args.command).await;
            store.close().await;
            done
        }
    }
}

fn open(args: &Args) -> Result<Arc<dyn Store>, Failure> {
    let dir = args.data_dir.clone().unwrap_or_else(|| args.project.join(".fnhost"));
    std::fs::create_dir_all(&dir)
        .map_err(|error| Failure::host(format!("cannot make the data directory {}: {error}", dir.display())))?;
    let store = SqliteStore::open(dir.join("fnhost.db"), &SqliteOptions::default());
    let store = store.map_err(|error| {
        Failure::host(format!("{error}\nIf a server is running on it, name the server: --url http://localhost:4001"))
    })?;
    Ok(Arc::new(store))
}

async fn manage_local(store: Arc<dyn Store>, command: &Command) -> Result<String, Failure> {
    let access = Access::new(store.clone(), false);
    let failed = |error: crate::store::StoreError| Failure::host(error.to_string());
    match command {
        Command::Create { name, scopes } => {
            let created = access.create(name, scopes).await.map_err(failed)?;
            Ok(format!("{}\n", created.secret))
        }
        Command::List { json } => {
            let tokens = store.tokens().await.map_err(failed)?;
            let tokens: Vec<Value> = tokens
                .iter()
                .map(|token| {
                    json!({
                        "id": token.id, "name": token.name, "scopes": token.scopes,
                        "created_at": token.created_at, "revoked_at": token.revoked_at,
                    })
                })
                .collect();
            Ok(listed(&tokens, *json))
        }
        Command::Revoke { id } => match access.revoke(id).await.map_err(failed)? {
            true => Ok(String::new()),
            false => Err(not_in_force(id)),
        },
    }
}

fn not_in_force(id: &str) -> Failure {
    Failure::usage(format!("there is no token `{id}` in force; see: fnhost token list"))
}

fn listed(tokens: &[Value], as_json: bool) -> String {
    if as_json {
        return format!("{:#}\n", Value::from(tokens));
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let rows: Vec<[String; 4]> = tokens
        .iter()
        .map(|token| {
            let scopes = token["scopes"].as_array().into_iter().flatten().map(text).collect::<Vec<_>>();
            let state = if token["revoked_at"].is_null() { "in force" } else { "revoked" };
            [text(&token["id"]), text(&token["name"]), scopes.join(","), state.to_owned()]
        })
        .collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2)];
    let mut table = String::new();
    for [id, name, scopes, state] in &rows {
        let _ =
            writeln!(table, "{id:a$}  {name:b$}  {scopes:c$}  {state}", a = widths[0], b = widths[1], c = widths[2]);
    }
    table
}

/// A server that runs.
struct Remote {
    client: deno_fetch::Client,
    tokens: String,
    authorization: String,
}

impl Remote {
    fn new(url: &str, token: Option<&str>) -> Result<Self, Failure> {
        let token = token.ok_or_else(|| Failure::usage("put a token with the scope `admin` into FNHOST_TOKEN"))?;
        // rustls wants one provider per process; whoever installed one first is as good.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = deno_fetch::create_http_client(
            concat!("fnhost/", env!("CARGO_PKG_VERSION")),
            CreateHttpClientOptions::default(),
        );
        let client = client.map_err(|error| Failure::host(error.to_string()))?;
        let tokens = format!("{}/api/v1/tokens", url.trim_end_matches('/'));
        Ok(Self { client, tokens, authorization: format!("Bearer {token}") })
    }

    async fn manage(&self, command: &Command) -> Result<String, Failure> {
        match command {
            Command::Create { name, scopes } => {
                let scopes: Vec<String> = scopes.iter().map(ToString::to_string).collect();
                let body = json!({ "name": name, "scopes": scopes });
                let created = self.ask(Method::POST, "", Some(body)).await?;
                Ok(format!("{}\n", created["secret"].as_str().unwrap_or_default()))
            }
            Command::List { json } => {
                let list = self.ask(Method::GET, "", None).await?;
                Ok(listed(list["data"].as_array().map_or(&[], Vec::as_slice), *json))
            }
            Command::Revoke { id } => {
                let id: String = url::form_urlencoded::byte_serialize(id.as_bytes()).collect();
                self.ask(Method::DELETE, &format!("/{id}"), None).await.map(|_| String::new())
            }
        }
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value, Failure> {
        const PATIENCE: Duration = Duration::from_secs(30);
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.tokens))
            .header(header::AUTHORIZATION, &self.authorization)
            .header(header::CONTENT_TYPE, "application/json")
            .body(ReqBody::full(body.into()))
            .map_err(|_| Failure::usage("--url is not an address, or the token holds characters that none has"))?;
        let answer = async {
            let response = self.client.clone().send(request).await.map_err(|error| error.to_string())?;
            let status = response.status();
            let body = response.into_body().collect().await.map_err(|error| error.to_string())?;
            Ok::<_, String>((status, body.to_bytes()))
        };
        let (status, body) = tokio::time::timeout(PATIENCE, answer)
            .await
            .map_err(|_| Failure::host(format!("{} does not answer", self.tokens)))?
            .map_err(Failure::host)?;
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        if status.is_success() {
            return Ok(answer);
        }
        let detail = answer["detail"].as_str().unwrap_or("it does not say why");
        let message = format!("the server answered {status}: {detail}");
        Err(match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => Failure::usage(message),
            _ => Failure::host(message),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_a_table_for_people_and_json_for_programs() {
        let tokens = [
            json!({ "id": "1", "name": "first", "scopes": ["admin"], "created_at": "t", "revoked_at": null }),
            json!({ "id": "22", "name": "b", "scopes": ["read", "write"], "created_at": "t", "revoked_at": "t" }),
        ];
        assert_eq!(listed(&tokens, false), "1   first  admin       in force\n22  b      read,write  revoked\n");
        assert_eq!(serde_json::from_str::<Value>(&listed(&tokens, true)).unwrap(), json!(tokens));
    }
}
