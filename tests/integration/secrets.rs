//! Secrets stay where they belong: they are planted everywhere they can come from, and looked for everywhere they could
//! have come to.

use serde_json::{Value, json};

use super::server::{Server, Setup};
use super::support::http_server;

/// All secrets begin with this, so that no part of one is overlooked.
const PLANTED: &str = "PL4NT3D";

/// Jobs that are careless with their credentials.
fn project(remote: &str) -> String {
    format!(
        "
jobs:
  talk:
    adaptor: common
    trigger: any
    credential: everything
    expression: |
      fn(state => {{
        const {{ password, nested, address }} = state.configuration;
        console.log(state.configuration);
        console.error(`password=${{password}}`, JSON.stringify(nested), new URL(address).password);
        console.log(Buffer.from(`${{state.configuration.username}}:${{password}}`).toString('base64'));
        return state;
      }})
  ask:
    adaptor: http
    trigger: talked
    credential: everything
    expression: get(state => `{remote}/status/404?token=${{state.configuration.nested.token}}`)
  ask-with-a-user:
    adaptor: http
    trigger: asked
    credential: everything
    expression: get(state => state.configuration.address)
  throw:
    adaptor: common
    trigger: asked-again
    credential: everything
    expression: |
      fn(state => {{
        const error = new Error('cannot sign in at ' + state.configuration.address);
        error.request = {{ headers: {{ authorization: `Bearer ${{state.configuration.nested.token}}` }} }};
        throw error;
      }})
  stored:
    adaptor: common
    trigger: thrown
    credential: in-the-store
    expression: |
      fn(state => {{ throw new Error('no ' + state.configuration.token) }})
  hook: {{ adaptor: common, trigger: hook, expression: fn(state => state) }}
triggers:
  any: {{ criteria: {{}} }}
  talked: {{ success: talk }}
  asked: {{ failure: ask }}
  asked-again: {{ failure: ask-with-a-user }}
  thrown: {{ failure: throw }}
  hook: {{ webhook: hook, auth: [{{ basic: everything }}, {{ api_key: keys }}] }}
credentials:
  everything:
    username: somebody
    password: {PLANTED}-password
    nested: {{ token: '{PLANTED}-token/=' }}
    address: http://somebody:{PLANTED}-in-address@127.0.0.1:1/path?key={PLANTED}-key
  keys: {{ key: {PLANTED}-api-key }}
"
    )
}

/// Requests with secrets wherever a request can have them.
fn careless(server: &Server) {
    for path in ["/inbox", "/i/hook", "/nothing/here", "/api/v1/runs"] {
        for body in ["{}", "{"] {
            let path = format!("{path}?token={PLANTED}-in-query&access_token={PLANTED}-in-query-too");
            let request = server.request("POST", &path);
            let request = request
                .header("authorization", &format!("Bearer {PLANTED}-bearer"))
                .header("x-api-key", &format!("{PLANTED}-api-key"))
                .header("cookie", &format!("session={PLANTED}-cookie; other={PLANTED}-other"))
                .header(
                    "referer",
                    &format!("https://jo:{PLANTED}-in-referer@example.org/?token={PLANTED}-referer-query"),
                )
                .header("x-said-again", &format!("{PLANTED}-bearer"));
            let answer = request.body("application/json", body).send();
            assert!(!answer.text().contains(PLANTED), "{path}: {}", answer.text());
        }
    }
}

/// Everything that the server shows, page by page.
fn shown(server: &Server) -> Vec<(String, String)> {
    let mut paths: Vec<String> = [
        "/runs",
        "/messages",
        "/workflows",
        "/queue",
        "/metrics",
        "/readyz",
        "/api/v1/runs",
        "/api/v1/messages",
        "/api/v1/tasks",
        "/api/v1/workflows",
        "/api/v1/workflows/talk",
        "/api/v1/workflows/hook",
        "/api/v1/queue",
        "/api/v1/project",
        "/api/v1/credentials",
        "/api/v1/tokens",
    ]
    .map(str::to_owned)
    .to_vec();
    let id = |item: &Value| item["id"].as_str().unwrap().to_owned();
    for message in server.list("/api/v1/messages") {
        paths.extend([format!("/messages/{}", id(&message)), format!("/api/v1/messages/{}", id(&message))]);
    }
    for run in server.list("/api/v1/runs") {
        let path = format!("/api/v1/runs/{}", id(&run));
        for task in server.read(&path).expect(200).json()["tasks"].as_array().unwrap() {
            paths.push(format!("/api/v1/tasks/{}/input", id(task)));
            for attempt in task["tries"].as_array().unwrap() {
                let attempt = format!("/api/v1/attempts/{}", id(attempt));
                paths.extend([format!("{attempt}/output"), format!("{attempt}/log"), attempt]);
            }
        }
        paths.extend([format!("/runs/{}", id(&run)), path]);
    }
    let read = |path: String| {
        let answer = server.read(&path).expect(200);
        (path, answer.text())
    };
    paths.into_iter().map(read).collect()
}

#[test]
fn secrets_are_found_nowhere() {
    let remote = http_server::Server::start();
    let server = Setup::new(&project(&remote.origin())).args(&["--log", "trace"]).start();
    let stored = json!({ "token": format!("{PLANTED}-stored") });
    server.request("PUT", "/api/v1/credentials/in-the-store").authorized().json(&stored).send().expect(204);
    server.until("the stored credential is known", || {
        let project = server.read("/api/v1/project").json();
        project["problems"].as_array().unwrap().is_empty().then_some(())
    });
    careless(&server);
    let run = server.post("/inbox?wait=60s", &json!({})).expect(206).json();
    let run = server.run_in(run["jobs"][0]["run_id"].as_str().unwrap(), "failed");
    let steps: Vec<&str> = run["tasks"].as_array().unwrap().iter().map(|task| task["step"].as_str().unwrap()).collect();
    assert_eq!(steps, ["talk", "ask", "ask-with-a-user", "throw", "stored"], "{run}");
    assert!(remote.seen().iter().any(|seen| seen.parameter("token").is_some_and(|token| token.contains(PLANTED))));

    server.until("all runs have ended", || {
        server.list("/api/v1/runs?state=pending&state=running").is_empty().then_some(())
    });
    for (path, text) in shown(&server) {
        assert!(!text.contains(PLANTED), "{path}: {}", around(&text));
    }
    let log = server.log();
    assert!(log.contains("a job logs"), "the log has the lines of jobs at this level");
    assert!(!log.contains(PLANTED), "the log: {}", around(&log));
    assert_eq!(server.data_files_with(&[PLANTED]), Vec::<std::path::PathBuf>::new());
}

/// The first place where something planted is.
fn around(text: &str) -> &str {
    let at = text.find(PLANTED).unwrap_or_default();
    &text[text.floor_char_boundary(at.saturating_sub(200))..text.ceil_char_boundary((at + 100).min(text.len()))]
}
