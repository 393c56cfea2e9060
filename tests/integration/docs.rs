//! The documentation: served, written to files, and right in what it says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};

use super::browser::Browser;
use super::server::{Server, start};
use super::support::{self, PROGRAM, Ran, fnhost};

const PROJECT: &str = "
jobs: { any: { adaptor: common, trigger: any, expression: fn(state => state) } }
triggers: { any: { criteria: {} } }
";

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A page as far as these tests look into one.
#[derive(Default)]
struct Html {
    /// What elements have as `id`.
    ids: BTreeSet<String>,
    /// Addresses of links.
    links: Vec<String>,
    /// Addresses of what is loaded with the page.
    loads: Vec<String>,
}

impl Html {
    /// Fails unless every element is closed where it was opened, all values are quoted, and no id comes up twice.
    #[track_caller]
    fn read(name: &str, text: &str) -> Self {
        let mut html = Self::default();
        let mut open: Vec<&str> = Vec::new();
        let text = text.strip_prefix("<!DOCTYPE html>").unwrap_or_else(|| panic!("{name}: no document type"));
        for part in text.split('<').skip(1) {
            let (tag, text) = part.split_once('>').unwrap_or_else(|| panic!("{name}: `<{part}` does not end"));
            let entities = text.split('&').skip(1);
            assert!(entities.clone().all(is_entity), "{name}: `&` in `{text}`");
            assert!(!text.contains('>'), "{name}: `>` in `{text}`");
            if let Some(closed) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(closed), "{name}: closed in `<{part}`");
                continue;
            }
            let tag = tag.trim_end_matches('/').trim_end();
            let (element, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
            html.take(name, element, &values(name, attributes));
            if !matches!(element, "meta" | "link" | "br" | "hr" | "img" | "input") {
                open.push(element);
            }
        }
        assert!(open.is_empty(), "{name}: left open: {open:?}");
        html
    }

    #[track_caller]
    fn take(&mut self, name: &str, element: &str, values: &BTreeMap<&str, &str>) {
        if let Some(id) = values.get("id") {
            assert!(self.ids.insert((*id).to_owned()), "{name}: `{id}` twice");
        }
        assert!(!values.contains_key("style"), "{name}: a style that the policy refuses");
        let link = values.get("href").map(|link| link.replace("&amp;", "&"));
        match element {
            "a" => self.links.push(link.unwrap_or_else(|| panic!("{name}: a link without address"))),
            "link" => self.loads.extend(link),
            "script" | "img" | "iframe" => self.loads.extend(values.get("src").map(|source| (*source).to_owned())),
            _ => {}
        }
        self.loads.extend(values.get("data-index").map(|index| (*index).to_owned()));
    }
}

fn is_entity(text: &str) -> bool {
    text.split_once(';').is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '#'))
}

/// Attributes of an element; one without a value has an empty one.
#[track_caller]
fn values<'a>(name: &str, mut attributes: &'a str) -> BTreeMap<&'a str, &'a str> {
    let mut values = BTreeMap::new();
    while !attributes.is_empty() {
        let end = attributes.find(['=', ' ']).unwrap_or(attributes.len());
        let (key, rest) = attributes.split_at(end);
        let (value, rest) = match rest.strip_prefix("=\"") {
            Some(rest) => rest.split_once('"').unwrap_or_else(|| panic!("{name}: no end of {key}")),
            None => ("", rest),
        };
        assert!(!key.contains('"') && values.insert(key, value).is_none(), "{name}: {key} in `{attributes}`");
        attributes = rest.trim_start();
    }
    values
}

fn is_elsewhere(link: &str) -> bool {
    link.contains("://") || link.starts_with("//") || link.starts_with("data:") || link.starts_with("javascript:")
}

/// All that is served from `/docs` on.
fn served(server: &Server) -> BTreeMap<String, Html> {
    let mut pages = BTreeMap::new();
    let mut to_read = vec!["/docs".to_owned(), "/api/v1/docs".to_owned()];
    while let Some(path) = to_read.pop() {
        let page = Html::read(&path, &server.get(&path).expect(200).text());
        let links = page.links.iter().filter_map(|link| link.split('#').next());
        to_read.extend(links.filter(|link| link.starts_with("/docs")).map(str::to_owned));
        pages.insert(path, page);
        to_read.retain(|path| !pages.contains_key(path));
    }
    pages
}

#[test]
fn every_link_of_the_served_pages_leads_somewhere() {
    let server = start(PROJECT);
    let pages = served(&server);
    let files = std::fs::read_dir(Path::new(ROOT).join("docs")).unwrap().flatten();
    let files = files.filter(|file| file.path().extension().is_some_and(|extension| extension == "md")).count();
    // The reference is not made of a file.
    assert_eq!(pages.len(), files + 1, "{:?}", pages.keys());
    for (path, page) in &pages {
        for link in page.links.iter().filter(|link| !is_elsewhere(link)) {
            let (target, anchor) = link.split_once('#').map_or((link.as_str(), None), |(t, a)| (t, Some(a)));
            let target = if target.is_empty() { path } else { target };
            match (pages.get(target), anchor) {
                (Some(page), Some(anchor)) => assert!(page.ids.contains(anchor), "{path}: {link}"),
                (Some(_), None) => {}
                // Pages for who is signed in: they send others to sign in.
                (None, _) => assert!(matches!(server.get(target).status, 200 | 303), "{path}: {link}"),
            }
        }
        for load in &page.loads {
            assert!(load.starts_with("/assets/"), "{path} loads {load}");
            server.get(load).expect(200);
        }
    }
}

#[test]
fn the_documentation_is_for_everyone_and_guarded_like_the_other_pages() {
    let server = start(PROJECT);
    let header = |path: &str, name: &str| server.get(path).header(name).unwrap_or("none").to_owned();
    for name in ["content-security-policy", "x-content-type-options", "referrer-policy", "content-type"] {
        assert_eq!(header("/docs/concepts", name), header("/sign-in", name));
    }
    assert_eq!(server.get("/docs/").expect(308).header("location"), Some("/docs"));
    assert_eq!(server.get("/docs/project.md").expect(308).header("location"), Some("/docs/project"));
    for nothing in ["/docs/nothing", "/docs/README", "/docs/..%2fREADME", "/docs/%3Cb%3E"] {
        let answer = server.get(nothing);
        assert!(matches!(answer.status, 400 | 404) && !answer.text().contains("<b>"), "{nothing}: {}", answer.text());
    }
    for page in [server.get("/sign-in"), server.read("/runs"), server.get("/api/v1/docs"), server.get("/docs/nothing")]
    {
        assert!(page.text().contains("href=\"/docs\""), "{}", page.text());
    }
}

/// The site as `fnhost docs --out` writes it.
fn written() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let output = fnhost(&["docs", "-o"]).arg(directory.path().join("new/site")).output().unwrap();
    Ran::new(output).expect(0);
    directory
}

#[test]
fn the_files_are_whole_and_load_nothing_from_elsewhere() {
    let directory = written();
    let site = directory.path().join("new/site");
    let names: BTreeSet<String> =
        site.read_dir().unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    let pages: BTreeMap<&str, Html> = names
        .iter()
        .filter(|name| name.ends_with(".html"))
        .map(|name| (name.as_str(), Html::read(name, &std::fs::read_to_string(site.join(name)).unwrap())))
        .collect();
    assert!(pages.len() > 10 && names.contains("openapi.json"), "{names:?}");
    for (name, page) in &pages {
        for link in page.links.iter().filter(|link| !is_elsewhere(link)) {
            let (target, anchor) = link.split_once('#').map_or((link.as_str(), None), |(t, a)| (t, Some(a)));
            let target = if target.is_empty() { name } else { target };
            assert!(names.contains(target), "{name}: {link}");
            assert!(anchor.is_none_or(|anchor| pages[target].ids.contains(anchor)), "{name}: {link}");
        }
        assert!(page.loads.iter().all(|load| names.contains(load)), "{name}: {:?}", page.loads);
    }
    for name in names.iter().filter(|name| name.ends_with(".css") || name.ends_with(".js")) {
        let text = std::fs::read_to_string(site.join(name)).unwrap();
        for way in ["@import", "url(", "fetch(", "XMLHttpRequest", "import("] {
            // The index holds words of the pages.
            assert!(name == "docs-index.js" || !text.contains(way), "{name}: {way}");
        }
    }
}

#[test]
fn a_written_page_is_searched_without_a_server() {
    let directory = written();
    let browser = Browser::open(true);
    browser.go(&format!("file://{}/new/site/index.html", directory.path().display()));
    browser.click("#search input");
    browser.fill("#search input", "retry backoff");
    browser.until_shown("#search ol", "retry");
    browser.leave_by("#search ol a");
    assert!(browser.url().ends_with("/new/site/project.html#retry"), "{}", browser.url());
    assert!(browser.text("article h1").contains("project"), "{}", browser.text("body"));
}

#[test]
fn pages_fit_a_phone_and_need_no_script() {
    let server = start(PROJECT);
    let browser = Browser::open(false);
    const PHONE: u16 = 360;
    browser.resize(PHONE.into(), 740);
    for path in served(&server).keys() {
        browser.go(&format!("{}{path}", server.url));
        assert_eq!(browser.page_width(), u64::from(PHONE), "{path}");
    }
    browser.go(&format!("{}/docs/project", server.url));
    browser.click(".to-contents");
    browser.leave_by("#contents a[href='/docs/jobs']");
    assert!(browser.text("article h1").contains("Writing jobs"), "{}", browser.text("body"));
}

#[test]
fn the_command_lists_and_prints_pages() {
    let docs = |args: &[&str]| Ran::new(fnhost(&["docs"]).args(args).output().unwrap());
    let list = docs(&[]).expect(0).stdout;
    let at = |name: &str| list.find(&format!("{name}  ")).unwrap_or_else(|| panic!("no {name} in {list}"));
    assert!(at("quick-start") < at("concepts") && at("concepts") < at("project"), "in reading order: {list}");
    let page = docs(&["concepts"]).expect(0).stdout;
    assert_eq!(page, std::fs::read_to_string(Path::new(ROOT).join("docs/concepts.md")).unwrap());
    assert!(docs(&["nothing"]).expect(2).stderr.contains("`fnhost docs` lists"));
    let file = tempfile::NamedTempFile::new().unwrap();
    let into_a_file = docs(&["-o", file.path().to_str().unwrap()]).expect(5);
    assert!(into_a_file.stderr.contains("cannot write"), "{}", into_a_file.stderr);
    assert!(Ran::new(fnhost(&["--help"]).output().unwrap()).stdout.contains("fnhost docs"));
}

/// Links within Markdown, outside of code.
fn links(markdown: &str) -> Vec<&str> {
    let prose = markdown.split("```").step_by(2);
    prose.flat_map(|text| text.split("](").skip(1)).filter_map(|rest| rest.split(')').next()).collect()
}

#[test]
fn links_of_the_repositorys_own_pages_lead_to_files() {
    let root = Path::new(ROOT);
    let docs = root.join("docs").read_dir().unwrap().map(|file| file.unwrap().path());
    let own = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|name| root.join(name));
    for file in docs.filter(|file| file.extension().is_some_and(|extension| extension == "md")).chain(own) {
        let text = std::fs::read_to_string(&file).unwrap();
        for link in links(&text).into_iter().filter(|link| !is_elsewhere(link) && !link.starts_with('#')) {
            let target = file.parent().unwrap().join(link.split('#').next().unwrap());
            assert!(target.exists(), "{}: {link}", file.display());
        }
    }
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    assert!(links(&readme).contains(&"docs/README.md"), "the index of the documentation");
}

/// Blocks of code in a language.
fn blocks<'a>(markdown: &'a str, language: &str) -> Vec<&'a str> {
    let code = markdown.split("```").skip(1).step_by(2);
    code.filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n')).collect()
}

#[test]
fn the_quick_start_does_what_it_says() {
    let page = std::fs::read_to_string(Path::new(ROOT).join("docs/quick-start.md")).unwrap();
    // A free port: the kernel does not give the same one again at once.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let script = format!("set -euo pipefail\n{}", blocks(&page, "sh").concat().replace("4001", &port));
    let directory = tempfile::tempdir().unwrap();
    let programs = Path::new(PROGRAM).parent().unwrap().display();
    let output = Command::new("bash")
        .args(["-c", &script])
        .current_dir(directory.path())
        .env("PATH", format!("{programs}:{}", std::env::var("PATH").unwrap()))
        .env("PORT", &port)
        .env("XDG_DATA_HOME", directory.path().join("data"))
        .env_remove("FNHOST_REPO_DIR")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let ran = Ran::new(output).expect(0);
    for shown in [
        r#""greeting": "Hello, Ada!""#,
        r#""log":["[JOB] a greeting for Ada"],"exit_code":0"#,
        "Cannot read properties of undefined (reading 'trim')\"],\"exit_code\":1",
        r#""version":2,"trigger":"visitor""#,
    ] {
        assert!(ran.stdout.contains(shown), "no `{shown}` in {}", ran.stdout);
    }
    assert!(ran.stderr.contains("1 workflow, no problems"), "{}", ran.stderr);
}

#[test]
fn projects_in_the_pages_are_sound() {
    let mut checked = 0;
    for page in ["quick-start", "project", "openfn"] {
        let text = std::fs::read_to_string(Path::new(ROOT).join(format!("docs/{page}.md"))).unwrap();
        for project in blocks(&text, "yaml").into_iter().filter(|block| block.starts_with("jobs:")) {
            let directory = tempfile::tempdir().unwrap();
            std::fs::create_dir(directory.path().join("jobs")).unwrap();
            for file in project.split("file://").skip(1).filter_map(|rest| rest.split(['\n', '}']).next()) {
                std::fs::write(directory.path().join(file), "fn(state => state);").unwrap();
            }
            std::fs::write(directory.path().join("project.yaml"), project).unwrap();
            let mut check = fnhost(&["check", "--json"]);
            check.current_dir(directory.path()).env("FNHOST_REPO_DIR", support::store());
            check.envs(["WAREHOUSE_PASSWORD", "SHOP_TOKEN", "PARTNER_KEY"].map(|name| (name, "a secret")));
            Ran::new(check.output().unwrap()).expect(0);
            checked += 1;
        }
    }
    assert!(checked >= 2, "{checked}");
}

#[test]
fn the_table_of_exit_codes_is_that_of_the_help() {
    let page = std::fs::read_to_string(Path::new(ROOT).join("docs/troubleshooting.md")).unwrap();
    let help = Ran::new(fnhost(&["run", "--help"]).output().unwrap()).stdout;
    let (_, codes) = help.split_once("Exit codes:").unwrap();
    for line in codes.trim().lines().filter(|line| !line.trim().starts_with("130")) {
        let (code, meaning) = line.trim().split_once(' ').unwrap();
        let plain = page.replace('`', "");
        assert!(plain.contains(&format!("| {code} | {} |", meaning.trim().replace('`', ""))), "{line}");
    }
}

/// What the program says about jobs, projects and servers that are wrong in the ways that the page tells of.
fn complaints() -> String {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    let say = |args: &[&str], variables: &[(&str, &str)]| {
        let mut command = fnhost(args);
        command.current_dir(directory.path()).env("FNHOST_REPO_DIR", support::store());
        command.envs(variables.iter().copied()).stdin(Stdio::null());
        String::from_utf8(command.output().unwrap().stderr).unwrap()
    };
    let mut said = String::new();
    for job in [
        "get('/x')",
        "fn(state => process.env)",
        "const x = $.data; fn(state => state)",
        "fn(state => eval('1'))",
        "fn(state => { total = 3; return state; })",
        "fn(state => {})",
    ] {
        write("job.js", job);
        said += &say(&["run", "job.js", "-a", support::COMMON], &[]);
    }
    said += &say(&["run", "job.js", "-a", "http", "--no-install", "--repo-dir", "."], &[]);
    said += &say(&["serve", "."], &[]);
    write("project.yaml", "workflows: {}\n");
    said += &say(&["check"], &[]);
    write("project.yaml", "jobs: { a: { adaptr: common, trigger: any, expression: fn(state => state) } }\n");
    said += &say(&["check"], &[]);
    write("project.yaml", PROJECT);
    said += &say(&["serve", "."], &[("FNHOST_SECRET_KEY", "short")]);
    said += &say(&["serve", ".", "--data-dir", "/proc"], &[]);
    write("fnhost.yaml", "prot: 1\n");
    said += &say(&["serve", "."], &[]);
    write("fnhost.yaml", "");
    let server = start(&PROJECT.replace("trigger: any,", "trigger: any, credential: registry,"));
    let port = server.address.split_once(':').unwrap().1;
    said += &say(&["serve", ".", "--port", port], &[]);
    said += &String::from_utf8(server.command(&["serve", ".", "--port", "0"]).output().unwrap().stderr).unwrap();
    said += &server.log().replace("\\n", "\n");
    said
}

#[test]
fn the_messages_in_troubleshooting_are_those_of_the_program() {
    /// They take a registry, another key, or an address that others can reach; other tests see them.
    const NOT_PROVOKED: [&str; 4] =
        ["there is no package", "has no version that fits", "this secret was sealed", "everyone who reaches"];
    let page = std::fs::read_to_string(Path::new(ROOT).join("docs/troubleshooting.md")).unwrap();
    let said = complaints();
    let (_, tables) = page.split_once("## Before anything runs").unwrap();
    let (tables, _) = tables.split_once("## When messages come").unwrap();
    let messages = tables.lines().filter_map(|line| line.strip_prefix("| `")).filter_map(|row| row.split_once(" |"));
    let mut seen = 0;
    for (message, _) in messages {
        let message = message.split("`, ").next().unwrap().trim_matches(['`', ' ']);
        if NOT_PROVOKED.iter().any(|start| message.starts_with(start)) {
            continue;
        }
        for part in message.split(['…', '`']).map(|part| part.trim_start_matches("cannot listen on 127.0.0.1:4001")) {
            let part = if part == "adaptr" { "" } else { part.trim() };
            assert!(said.contains(part), "no program says `{part}` of `{message}`: {said}");
        }
        seen += 1;
    }
    assert!(seen > 10, "{seen}");
}
