//! A real Chromium without a window, told what to do by WebDriver.
//!
//! Sources: W3C WebDriver; what stands under `goog:` is chromedriver's.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::wait::{PATIENCE, eventually};

const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser with one page. Ended by [`Browser::quit`]; else, when a test fails, with its driver.
pub struct Browser {
    driver: Child,
    client: reqwest::Client,
    session: String,
    _profile: TempDir,
}

/// How it looks at pages.
#[derive(Clone, Copy)]
pub struct Look {
    pub javascript: bool,
    pub dark: bool,
    pub width: u32,
}

impl Default for Look {
    fn default() -> Self {
        Self { javascript: true, dark: false, width: 1280 }
    }
}

impl Browser {
    pub async fn start(look: Look) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let log = File::create(profile.path().join("driver.log")).unwrap();
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .env("HOME", profile.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("tests/run installs chromedriver");
        let said = BufReader::new(driver.stdout.take().unwrap()).lines().map_while(Result::ok);
        let port = said.filter_map(|line| line.split_once("successfully on port ").map(|(_, port)| port.to_owned()));
        let port = port.map(|port| port.trim_end_matches('.').to_owned()).next().expect("chromedriver says its port");
        let client = finhook::outbound::client().unwrap().timeout(PATIENCE).build().unwrap();
        let data = profile.path().join("profile");
        let mut args = vec![
            "--headless".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--disable-quic".to_owned(),
            "--no-first-run".to_owned(),
            "--disable-background-networking".to_owned(),
            "--disable-component-update".to_owned(),
            "--disable-sync".to_owned(),
            "--force-device-scale-factor=1".to_owned(),
            format!("--window-size={},900", look.width),
            format!("--user-data-dir={}", data.display()),
        ];
        if look.dark {
            args.push("--force-dark-mode".to_owned());
            args.push("--blink-settings=preferredColorScheme=0".to_owned());
        }
        let mut options = json!({ "args": args });
        if !look.javascript {
            options["prefs"] = json!({ "profile.managed_default_content_settings.javascript": 2 });
        }
        if look.width < 500 {
            // Windows are never that narrow; screens are.
            options["mobileEmulation"] =
                json!({ "deviceMetrics": { "width": look.width, "height": 800, "pixelRatio": 1.0 } });
        }
        let wanted =
            json!({ "capabilities": { "alwaysMatch": { "browserName": "chrome", "goog:chromeOptions": options } } });
        let base = format!("http://127.0.0.1:{port}/session");
        let answer = client.post(&base).body(wanted.to_string()).send().await.unwrap().text().await.unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        let id = answer["value"]["sessionId"].as_str().unwrap_or_else(|| panic!("{answer}"));
        Self { driver, client, session: format!("{base}/{id}"), _profile: profile }
    }

    async fn tell(&self, command: &str, arguments: Value) -> Result<Value, Value> {
        let request = self.client.post(format!("{}/{command}", self.session)).body(arguments.to_string());
        let answer = request.send().await.unwrap();
        let (ok, text) = (answer.status().is_success(), answer.text().await.unwrap());
        let mut answer: Value = serde_json::from_str(&text).unwrap();
        let value = answer["value"].take();
        if ok { Ok(value) } else { Err(value) }
    }

    pub async fn go(&self, url: &str) {
        self.tell("url", json!({ "url": url })).await.unwrap();
    }

    /// Runs a script in the page, which policies for pages do not keep it from; what it returns.
    pub async fn run(&self, script: &str, arguments: &[Value]) -> Value {
        self.tell("execute/sync", json!({ "script": script, "args": arguments })).await.unwrap()
    }

    /// The same of one that gets a function to be called with its result.
    pub async fn run_later(&self, script: &str) -> Value {
        self.tell("execute/async", json!({ "script": script, "args": [] })).await.unwrap()
    }

    async fn on(&self, css: &str, what: &str, arguments: Value) {
        let done = async || {
            let found = self.tell("element", json!({ "using": "css selector", "value": css })).await;
            let Ok(found) = found else { return false };
            let command = format!("element/{}/{what}", found[ELEMENT].as_str().unwrap());
            // A page that is just being made anew has elements that are gone in a moment.
            self.tell(&command, arguments.clone()).await.is_ok()
        };
        eventually(&format!("{what} {css}"), done).await;
    }

    pub async fn click(&self, css: &str) {
        self.on(css, "click", json!({})).await;
    }

    pub async fn type_in(&self, css: &str, text: &str) {
        self.on(css, "clear", json!({})).await;
        self.on(css, "value", json!({ "text": text })).await;
    }

    /// Presses keys where the focus is.
    pub async fn press(&self, keys: &str) {
        let keys: Vec<Value> = keys
            .chars()
            .flat_map(|key| [json!({ "type": "keyDown", "value": key }), json!({ "type": "keyUp", "value": key })])
            .collect();
        // The page's script is there only now.
        eventually("the page is complete", async || self.run("return document.readyState", &[]).await == "complete")
            .await;
        self.tell("actions", json!({ "actions": [{ "type": "key", "id": "keys", "actions": keys }] })).await.unwrap();
    }

    /// What is to be read on the page.
    pub async fn text(&self) -> String {
        let text = self.run("return document.body ? document.body.innerText : ''", &[]).await;
        text.as_str().unwrap_or_default().to_owned()
    }

    pub async fn path(&self) -> String {
        self.run("return location.pathname + location.search", &[]).await.as_str().unwrap().to_owned()
    }

    /// Waits until something is to be read.
    pub async fn shows(&self, text: &str) {
        let mut last = String::new();
        let deadline = std::time::Instant::now() + PATIENCE;
        while !last.contains(text) {
            assert!(std::time::Instant::now() < deadline, "{text:?} is never shown at {}:\n{last}", self.path().await);
            last = self.text().await;
        }
    }

    /// Waits until a page of this path is there.
    pub async fn is_at(&self, path: &str) {
        eventually(&format!("at {path}"), async || self.path().await.starts_with(path)).await;
    }

    /// A picture of what is seen.
    pub async fn picture(&self, file: &Path) {
        let answer =
            self.client.get(format!("{}/screenshot", self.session)).send().await.unwrap().text().await.unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        std::fs::write(file, STANDARD.decode(answer["value"].as_str().unwrap()).unwrap()).unwrap();
    }

    pub async fn quit(mut self) {
        self.client.delete(&self.session).send().await.unwrap();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Fails when it is over already. Asked to end, it takes its browser along.
        if let Ok(None) = self.driver.try_wait() {
            let id = rustix::process::Pid::from_child(&self.driver);
            let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
            let _ = self.driver.wait();
        }
    }
}
