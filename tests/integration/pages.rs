//! The pages, in a real browser: what a person can see and do.

use serde_json::json;

use super::browser::Browser;
use super::server::{Server, Setup};

const PROJECT: &str = "
jobs:
  greet:
    adaptor: common
    trigger: greeting
    expression: |
      fn(async state => {
        console.log('good day,', state.data.name);
        await new Promise(resolve => setTimeout(resolve, state.data.wait ?? 0));
        console.log('good bye,', state.data.name);
        return { ...state, data: { greeted: state.data.name } };
      })
  fails-once:
    adaptor: common
    trigger: trouble
    expression: fn(state => { throw new Error('<b>no</b> luck'); })
triggers:
  greeting: { criteria: { form: greeting } }
  trouble: { criteria: { form: trouble } }
";

fn start() -> Server {
    Setup::new(PROJECT).start()
}

fn sign_in(browser: &Browser, server: &Server, path: &str) {
    browser.go(&format!("{}{path}", server.url));
    assert!(browser.url().contains("/sign-in"), "{}", browser.url());
    browser.fill("#token", &server.token);
    browser.leave_by("main button");
    assert_eq!(browser.url(), format!("{}{path}", server.url));
}

#[test]
fn a_run_is_followed_live_read_and_run_again() {
    let server = start();
    let browser = Browser::open(true);
    sign_in(&browser, &server, "/runs");
    browser.until_shown("#live", "live");
    browser.until_shown("#runs", "No runs here.");

    server.post("/inbox", &json!({ "form": "greeting", "name": "Ada", "wait": 4000 })).expect(202);
    browser.until_shown("#runs", "greet");
    browser.until_shown("#runs .state", "running");
    browser.leave_by("#runs td.main a");
    browser.until_shown("#head .state", "running");
    browser.until_shown("#steps .log", "good bye, Ada");
    browser.until_shown("#head .state", "completed");
    browser.until_shown("#steps .log", "good day, Ada");

    browser.click("#steps details[id^=output] summary");
    browser.until_shown("#steps details[id^=output] .json", "\"greeted\": \"Ada\"");
    let first = browser.url();
    browser.leave_by("form[action$='/retry'] button");
    assert_ne!(browser.url(), first);
    browser.until_shown(".facts", "Repeats");
    browser.until_shown("#head .state", "completed");
}

#[test]
fn all_can_be_done_without_javascript() {
    let server = start();
    let browser = Browser::open(false);
    sign_in(&browser, &server, "/runs?state=failed");
    server.post("/inbox?wait=60s", &json!({ "form": "trouble" })).expect(206);
    server.post("/inbox?wait=60s", &json!({ "form": "greeting", "name": "Ada" })).expect(201);

    browser.go(&format!("{}/runs?state=failed", server.url));
    assert_eq!(browser.text("#live"), "", "there are no scripts");
    assert!(!browser.text("#runs").contains("greet"));
    browser.leave_by("#runs td.main a");
    let failure = browser.text("#head .failure");
    assert!(failure.contains("<b>no</b> luck"), "shown as it is: {failure}");
    browser.leave_by("form[action$='/retry'] button");
    browser.until_shown(".facts", "Repeats");

    browser.go(&format!("{}/queue", server.url));
    browser.until_shown("#dead", "fails-once");
    browser.leave_by("#dead td.act button");
    browser.go(&format!("{}/messages", server.url));
    browser.leave_by("#messages td.main a");
    browser.until_shown("pre.json", "\"name\": \"Ada\"");
    browser.leave_by("form[action$='/replay'] button");
    server.until("the message has two runs", || {
        let runs = server.read("/api/v1/runs?workflow=greet").json();
        (runs["data"].as_array()?.len() == 2).then_some(())
    });

    browser.go(&format!("{}/workflows", server.url));
    browser.click("#start-greet summary");
    browser.fill("#start-greet textarea", r#"{"data":{"name":"Grace"}}"#);
    browser.leave_by("#start-greet button");
    assert!(browser.url().contains("/runs/"), "{}", browser.url());
    browser.leave_by("header form button");
    browser.go(&format!("{}/runs", server.url));
    assert!(browser.url().contains("/sign-in"), "signed out");
}

#[test]
fn a_run_under_way_is_cancelled() {
    let server = start();
    let browser = Browser::open(true);
    server.post("/inbox", &json!({ "form": "greeting", "name": "Ada", "wait": 60_000 })).expect(202);
    sign_in(&browser, &server, "/runs?workflow=greet");
    browser.until_shown("#runs .state", "running");
    browser.leave_by("#runs td.main a");
    browser.leave_by("form[action$='/cancel'] button");
    browser.until_shown("#head .state", "cancelled");
}

#[test]
fn nobody_acts_in_the_name_of_somebody_else() {
    let server = start();
    let cookie = format!("fnhost_session={}", server.token);
    let post = |path: &str, origin: &str| {
        let request = server.request("POST", path).header("cookie", &cookie).header("origin", origin);
        request.body("application/x-www-form-urlencoded", "all=true").send()
    };
    assert_eq!(post("/queue/redrive", "https://evil.example").status, 403);
    assert_eq!(post("/sign-out", "https://evil.example").status, 403);
    assert_eq!(post("/queue/redrive", &server.url).status, 303);

    let sign_in = server.request("POST", "/sign-in").header("origin", &server.url);
    let answer =
        sign_in.body("application/x-www-form-urlencoded", format!("token={}", server.token)).send().expect(303);
    let cookie = answer.header("set-cookie").unwrap();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    let wrong = server.request("POST", "/sign-in").body("application/x-www-form-urlencoded", "token=fnh_wrong").send();
    assert!(wrong.status == 403 && wrong.header("set-cookie").is_none());
}

#[test]
fn pages_allow_no_scripts_but_their_own_and_need_a_token() {
    let server = start();
    for path in ["/", "/runs", "/messages", "/workflows", "/queue"] {
        let answer = server.get(path).expect(303);
        assert!(answer.header("location").unwrap().starts_with("/sign-in?next="), "{path}");
    }
    let page = server.read("/runs").expect(200);
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    let style = page
        .text()
        .split("href=\"")
        .find_map(|part| part.starts_with("/assets/style").then(|| part.split('"').next().unwrap().to_owned()));
    let asset = server.get(&style.unwrap()).expect(200);
    assert!(asset.header("cache-control").unwrap().contains("immutable"));
    for path in ["/runs/nonsense", "/runs?state=nonsense", "/runs/01890a5d-ac96-774b-bcce-b302099a8057"] {
        let answer = server.read(path);
        assert!(matches!(answer.status, 400 | 404) && answer.text().contains("<main"), "{path}: {}", answer.text());
    }
}

#[test]
fn who_may_only_read_is_offered_nothing_else() {
    let server = start();
    server.post("/inbox?wait=60s", &json!({ "form": "trouble" })).expect(206);
    let token = server
        .request("POST", "/api/v1/tokens")
        .authorized()
        .json(&json!({ "name": "reader", "scopes": ["read"] }))
        .send()
        .expect(201)
        .json();
    let bearer = format!("Bearer {}", token["secret"].as_str().unwrap());
    let page = |path: &str| server.request("GET", path).header("authorization", &bearer).send().expect(200).text();
    let run = server.read("/api/v1/runs").json()["data"][0]["id"].as_str().unwrap().to_owned();
    for path in [format!("/runs/{run}"), "/queue".into(), "/workflows".into()] {
        assert_eq!(page(&path).matches("method=\"post\"").count(), 1, "only signing out: {path}");
        assert!(server.read(&path).text().matches("method=\"post\"").count() > 1, "{path}");
    }
    let retry = server.request("POST", &format!("/runs/{run}/retry")).header("authorization", &bearer);
    assert_eq!(retry.body("application/x-www-form-urlencoded", "from=").send().status, 403);
}
