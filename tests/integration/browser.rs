//! A real browser, headless, driven through WebDriver: only what the tests of pages need of it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::server::{Answer, PATIENCE};

/// The key under which WebDriver names an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser with one window. It is closed when it is dropped.
pub struct Browser {
    driver: Child,
    address: String,
    session: String,
}

/// An element of the page that is shown. It is gone when the page changes.
pub struct Element<'a> {
    browser: &'a Browser,
    id: String,
}

impl Browser {
    /// The driver, and where it listens.
    fn start_driver() -> Option<(Child, String)> {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver, from Debian's package chromium-driver");
        let port = BufReader::new(driver.stdout.take().unwrap()).lines().map_while(Result::ok).find_map(|line| {
            line.split_once("started successfully on port ").map(|(_, port)| port.trim_end_matches('.').to_owned())
        });
        if port.is_none() {
            let _ = driver.wait();
        }
        port.map(|port| (driver, format!("127.0.0.1:{port}")))
    }

    pub fn open(javascript: bool) -> Self {
        // It takes a port of IPv4 and hopes that the same of IPv6 is free.
        let (driver, address) = (0..5).find_map(|_| Self::start_driver()).expect("chromedriver with a port");
        let mut browser = Self { driver, address, session: String::new() };
        let scripts = if javascript { 1 } else { 2 };
        let options = json!({
            // There is no sandbox for root, and little shared memory in containers.
            "args": ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,900"],
            "prefs": { "profile.managed_default_content_settings.javascript": scripts },
        });
        let capabilities = json!({ "browserName": "chrome", "goog:chromeOptions": options });
        let answer = browser.ask("POST", "/session", Some(json!({ "capabilities": { "alwaysMatch": capabilities } })));
        browser.session = answer["sessionId"].as_str().expect("a session").to_owned();
        browser
    }

    pub fn go(&self, url: &str) {
        self.command("POST", "url", Some(json!({ "url": url })));
    }

    /// Shows pages as wide and as high as this many pixels.
    pub fn resize(&self, width: u32, height: u32) {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": true });
        let command = json!({ "cmd": "Emulation.setDeviceMetricsOverride", "params": metrics });
        self.command("POST", "goog/cdp/execute", Some(command));
    }

    /// How wide the page is, in pixels, with what lies outside the window.
    pub fn page_width(&self) -> u64 {
        let metrics = json!({ "cmd": "Page.getLayoutMetrics", "params": {} });
        let metrics = self.command("POST", "goog/cdp/execute", Some(metrics));
        metrics["cssContentSize"]["width"].as_u64().expect("a width")
    }

    pub fn url(&self) -> String {
        self.command("GET", "url", None).as_str().unwrap().to_owned()
    }

    /// The first element that a CSS selector finds.
    pub fn find(&self, selector: &str) -> Option<Element<'_>> {
        let wanted = json!({ "using": "css selector", "value": selector });
        let found = self.command("POST", "elements", Some(wanted));
        let id = found[0][ELEMENT].as_str()?.to_owned();
        Some(Element { browser: self, id })
    }

    /// The text that a person sees in an element. Empty: there is none, or it is being replaced.
    pub fn text(&self, selector: &str) -> String {
        let text = self.find(selector).map(|element| element.read("text"));
        text.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    /// Waits until an element shows a text.
    #[track_caller]
    pub fn until_shown(&self, selector: &str, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.text(selector).contains(text) {
            let page = self.text("body");
            assert!(Instant::now() < deadline, "`{selector}` does not show `{text}`, but the page is: {page}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Clicks on an element. One that a refresh of the page replaced in between is looked for again.
    #[track_caller]
    pub fn click(&self, selector: &str) {
        self.act(selector, |element| element.act("click", json!({})));
    }

    /// Clicks on what leads to another page, and waits until this one is gone.
    #[track_caller]
    pub fn leave_by(&self, selector: &str) {
        let left = self.expect("main");
        self.click(selector);
        let deadline = Instant::now() + PATIENCE;
        while left.read("name").get("error").is_none() {
            assert!(Instant::now() < deadline, "`{selector}` leads nowhere from {}", self.url());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    #[track_caller]
    pub fn fill(&self, selector: &str, text: &str) {
        self.act(selector, |element| element.act("value", json!({ "text": text })));
    }

    #[track_caller]
    fn act(&self, selector: &str, act: impl Fn(&Element<'_>) -> Value) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = act(&self.expect(selector));
            if answer.get("error").is_none() {
                return;
            }
            assert!(Instant::now() < deadline, "`{selector}`: {answer}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    #[track_caller]
    fn expect(&self, selector: &str) -> Element<'_> {
        self.find(selector).unwrap_or_else(|| panic!("no `{selector}` in: {}", self.text("body")))
    }

    fn command(&self, method: &str, command: &str, body: Option<Value>) -> Value {
        self.ask(method, &format!("/session/{}/{command}", self.session), body)
    }

    fn ask(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (address, length) = (&self.address, body.len());
        let head = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        Answer::read(&mut stream).json()["value"].take()
    }
}

impl Element<'_> {
    fn read(&self, what: &str) -> Value {
        self.browser.command("GET", &format!("element/{}/{what}", self.id), None)
    }

    fn act(&self, what: &str, body: Value) -> Value {
        self.browser.command("POST", &format!("element/{}/{what}", self.id), Some(body))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            self.ask("DELETE", &format!("/session/{}", self.session), None);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
