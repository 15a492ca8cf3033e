//! What people see and type: the real program on a real terminal, which `script` makes.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

use finhook::fake_fin::Settings;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::app::{TestApp, event};
use crate::support::command::Sandbox;
use crate::support::fin::World;
use crate::support::process::{Client, Place, body};
use crate::support::receiver::{Answer, Receiver};
use crate::support::wait::{eventually, until};

/// What would steer a terminal, or hide or reorder what is on it.
const HOSTILE: &str = "a\u{1b}[2Jb\u{9b}31mc\u{202e}d\u{200f}e";

/// A command on a terminal of this many columns: what is on the screen at its end, and its exit code. `typed` is what is typed.
fn on_terminal(sandbox: &Sandbox, columns: u32, arguments: &str, typed: &[u8]) -> (String, i32) {
    let line = format!("stty cols {columns} rows 40 -echo; exec {} {arguments}", env!("CARGO_BIN_EXE_finhook"));
    let mut script = Command::new("script");
    sandbox.enter(script.args(["--quiet", "--return", "--command", &line, "/dev/null"]));
    script.env("TERM", "xterm").env("PATH", "/usr/bin:/bin");
    let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(typed).unwrap();
    // Held open to the end: what closes is taken for Ctrl-D.
    let mut screen = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut screen).unwrap();
    let status = child.wait().unwrap();
    drop(input);
    (String::from_utf8(screen).unwrap().replace("\r\n", "\n"), status.code().unwrap())
}

/// A command that goes on, on a terminal.
struct Screen {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Screen {
    fn start(sandbox: &Sandbox, arguments: &str) -> Self {
        let line = format!("stty cols 80 rows 40; exec {} {arguments}", env!("CARGO_BIN_EXE_finhook"));
        let mut script = Command::new("script");
        sandbox.enter(script.args(["--quiet", "--command", &line, "/dev/null"]));
        let mut child =
            script.env("PATH", "/usr/bin:/bin").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// What is shown up to the line that has this in it.
    fn until(&mut self, text: &str) -> String {
        let mut shown = String::new();
        while !shown.contains(text) {
            assert!(self.lines.read_line(&mut shown).unwrap() > 0, "it ended: {shown}");
        }
        shown
    }

    /// Ctrl-C, and waits for the end.
    fn interrupt(mut self) {
        self.child.stdin.take().unwrap().write_all(b"\x03").unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Fails when it is over already; what runs in it ends with its terminal.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Every command, with those below it.
fn commands(above: &[String]) -> Vec<Vec<String>> {
    let arguments: Vec<&str> = above.iter().map(String::as_str).chain(["--help"]).collect();
    let help = Sandbox::new().run(&arguments).stdout;
    let list = help.split_once("Commands:\n").map_or("", |(_, list)| list);
    let names = list.lines().take_while(|line| !line.trim().is_empty());
    let names = names.filter_map(|line| line.strip_prefix("  ")?.split(' ').next().filter(|name| !name.is_empty()));
    let below: Vec<Vec<String>> =
        names.filter(|name| *name != "help").map(|name| [above, &[name.to_owned()]].concat()).collect();
    below.into_iter().flat_map(|command| [vec![command.clone()], commands(&command)].concat()).collect()
}

/// The lines of a help text that are meant to be pasted.
fn examples(help: &str) -> Vec<String> {
    let found = help.lines().skip_while(|line| !line.starts_with("Example"));
    found.filter(|line| line.starts_with("  ")).map(str::to_owned).collect()
}

#[test]
fn every_help_has_examples_that_are_whole_in_a_pipe_and_on_narrow_terminals() {
    let sandbox = Sandbox::new();
    let commands = commands(&[]);
    assert!(commands.len() > 20, "{commands:?}");
    for command in commands {
        let command = command.join(" ");
        let shown = sandbox.run(&format!("{command} --help").split(' ').collect::<Vec<_>>()).stdout;
        let in_pipe = examples(&shown);
        assert!(in_pipe.iter().any(|line| line.contains(&format!("finhook {command}"))), "{command}: {shown}");
        for columns in [80, 40] {
            let (screen, code) = on_terminal(&sandbox, columns, &format!("{command} --help"), b"");
            assert_eq!((examples(&screen), code), (in_pipe.clone(), 0), "{command} at {columns}: {screen}");
        }
        // A shell understands them: quotes and pipes are closed.
        let text = in_pipe.join("\n");
        let parsed = Command::new("bash").args(["-n", "-c", &text]).output().unwrap();
        assert!(parsed.status.success(), "{command}: {text}\n{}", String::from_utf8_lossy(&parsed.stderr));
    }
}

#[test]
fn wrong_usage_is_found_before_anything_is_tried() {
    // Nothing listens there, and the configuration is faulty: whoever tried anything would say so.
    let sandbox = Sandbox::with_config("nonsense = 1\n");
    for arguments in [
        "events list --limit 0",
        "events list --since yesterday",
        "events list --state lost",
        "events show x",
        "events replay --sink backend",
        "events replay --sink backend --since yesterday",
        "events purge",
        "events purge --user 1 x",
        "events purge 019497c1-10f3-8be9-9813-37ba266bc988 --limit 1",
        "tail --since yesterday",
        "fake-fin --speed 0",
        "fake-fin --callback ftp://a",
        "chat --fake --speed 0",
        "chat --fake --speed NaN",
        "send --count 0",
        "send --url http://",
        "sinks --admin ftp://a",
        "completions tcsh",
    ] {
        let done = sandbox.run(&arguments.split(' ').collect::<Vec<_>>());
        assert_eq!((done.code, done.stdout.as_str()), (2, ""), "{arguments}: {}", done.stderr);
        assert!(!done.stderr.contains("nonsense"), "{arguments}: {}", done.stderr);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_strangers_wrote_steers_the_terminal_and_a_pipe_gets_it_as_it_is() {
    let app = TestApp::start("[sinks.archive]\ntype = \"file\"\npath = \"DIR/events.ndjson\"\n").await;
    let mut hostile: Value = serde_json::from_str(&event("fin_replied", "c", 1)).unwrap();
    for key in ["conversation_id", "user_id", "status", "reason", "event_name"] {
        hostile[key] = HOSTILE.into();
    }
    hostile["message"]["body"] = HOSTILE.into();
    let id = app.accept(&hostile.to_string()).await;
    let steers = |screen: &str| screen.contains(['\u{9b}', '\u{202e}', '\u{200f}']) || screen.contains("\u{1b}[2J");
    let sandbox = Sandbox::new();
    let admin = format!("--admin {}", app.admin());
    for command in [
        format!("events list {admin}"),
        format!("events list --json {admin}"),
        format!("events show {id} {admin}"),
        format!("events show {id} --body {admin}"),
        format!("events show {id} --body --json {admin}"),
    ] {
        let run = |columns| {
            let (screen, code) = on_terminal(&sandbox, columns, &command, b"");
            assert_eq!(code, 0, "{command}: {screen}");
            assert!(!steers(&screen) && screen.contains(&id), "{command}: {screen:?}");
            screen
        };
        let wide = tokio::task::block_in_place(|| run(300));
        let in_pipe = tokio::task::block_in_place(|| sandbox.run(&command.split(' ').collect::<Vec<_>>()).stdout);
        if command.contains("--json") {
            let on_screen: Value = serde_json::from_str(wide.trim()).unwrap();
            assert_eq!(on_screen, serde_json::from_str::<Value>(in_pipe.trim()).unwrap(), "the same value");
            assert!(in_pipe.contains('\u{202e}'), "as it is: {in_pipe:?}");
        }
    }
    let (narrow, _) = tokio::task::block_in_place(|| on_terminal(&sandbox, 90, &format!("events list {admin}"), b""));
    assert!(narrow.lines().all(|line| line.chars().count() <= 90), "{narrow}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_shows_the_state_that_was_asked_for() {
    let receiver = Receiver::start().await;
    receiver.answer_all(Answer::status(400));
    let sink = format!(
        "[sinks.backend]\ntype = \"http\"\nurl = \"{}\"\nretry = {{ base = \"1ms\", cap = \"1ms\" }}\n[sinks.archive]\ntype = \"file\"\n\
         path = \"DIR/events.ndjson\"\n",
        receiver.url()
    );
    let app = TestApp::start(&sink).await;
    let id = app.accept(&event("fin_replied", "c", 1)).await;
    let sandbox = Sandbox::new();
    let admin = app.admin().to_string();
    let finhook = |arguments: &str| {
        let arguments: Vec<&str> = arguments.split(' ').chain(["--admin", &admin]).collect();
        let done = sandbox.run(&arguments);
        assert_eq!(done.code, 0, "{done:?}");
        done.stdout
    };
    eventually("it is dead", async || finhook("events list --state dead").contains(&id)).await;
    let row = finhook("events list --state dead");
    assert_eq!(row.lines().last().unwrap().split_whitespace().nth(2), Some("dead"), "{row}");
    let shown = finhook(&format!("events show {id}"));
    let at =
        |sink: &str| shown.lines().find(|line| line.starts_with(sink)).unwrap().split_whitespace().collect::<Vec<_>>();
    assert_eq!(at("backend")[1..3], ["dead", "3"], "{shown}");
    assert_eq!(at("archive")[1..3], ["delivered", "-"], "not known, not 0: {shown}");
    assert!(finhook("events list --status awaiting_user_reply").contains(&id));
    assert!(!finhook("events list --status escalated").contains(&id));
    assert!(finhook("events purge --user user-of-c --dry-run").starts_with("1 event ("));
    assert!(finhook("events purge --user nobody --dry-run").starts_with("0 events ("));
    receiver.answer_all(Answer::status(200));
    assert!(finhook("sinks retry-dead backend").starts_with("1 dead letter of backend is tried again"));
    app.stop().await;
}

#[test]
fn serve_on_a_terminal_prints_lines_for_people() {
    let place = Place::temporary("").var("SINKS__STDOUT__ENABLED", "true");
    let mut screen = Screen::start(place.sandbox(), "serve 2>serve.log");
    let mut public = None;
    until("it listens", || {
        let log = std::fs::read_to_string(place.path("serve.log")).unwrap_or_default();
        let line = log.lines().find(|line| line.contains("\"listening\"")).map(str::to_owned);
        public = line.map(|line| serde_json::from_str::<Value>(&line).unwrap()["public"].as_str().unwrap().to_owned());
        public.is_some()
    });
    let mut event: Value = serde_json::from_str(&body("c", 1, 0)).unwrap();
    event["conversation_id"] = HOSTILE.into();
    let answer = Client::new(public.unwrap().parse().unwrap()).post(event.to_string()).unwrap();
    assert_eq!(answer.status, 200);
    let shown = screen.until("fin_replied");
    let line = shown.lines().find(|line| line.contains("fin_replied")).unwrap();
    assert!(serde_json::from_str::<Value>(line).is_err() && line.contains("complete"), "{shown:?}");
    assert!(shown.contains(" UTC"), "the day: {shown:?}");
    assert!(!shown.contains("\u{1b}[2J") && !shown.contains('\u{202e}'), "{shown:?}");
    assert!(!shown.contains("<p>"), "no body unless include_body says so");
    screen.interrupt();
}

#[test]
fn a_second_interrupt_ends_the_drain() {
    let (url, _gone) = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        (format!("http://{}/", listener.local_addr().unwrap()), listener)
    };
    // What takes the connection and never answers holds the drain up.
    let place = Place::temporary(&format!("[sinks.backend]\ntype = \"http\"\nurl = \"{url}\"\ntimeout = \"1h\"\n"))
        .var("SERVER__DRAIN_TIMEOUT", "1h");
    let finhook = place.start();
    assert_eq!(finhook.post(&body("c", 1, 0)).unwrap().status, 200);
    until("it is on its way", || finhook.admin_get("/api/v1/sinks").body.contains("\"in_flight\":1"));
    let interrupt = || kill_process(Pid::from_raw(finhook.id().cast_signed()).unwrap(), Signal::INT).unwrap();
    interrupt();
    until("it drains", || finhook.logged("\"draining\"").is_some());
    interrupt();
    let ended = finhook.wait();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(ended.log.iter().any(|line| line.contains("interrupted again")), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tail_on_a_terminal_says_that_it_waits_and_which_day_it_is() {
    let world = World::start(Settings::default(), false).await;
    world.webhook(&json!({ "event_name": "fin_status_updated", "conversation_id": "c1", "status": "thinking" })).await;
    let sandbox = Sandbox::new().var("FINHOOK__ADMIN__BIND", &world.app.admin().to_string());
    let screen = tokio::task::block_in_place(|| {
        let mut screen = Screen::start(&sandbox, "tail --since 1h");
        let shown = screen.until("fin_status_updated");
        screen.interrupt();
        shown
    });
    let waits = screen.find("waiting for events").unwrap_or_else(|| panic!("{screen}"));
    let day = screen.find(" UTC").unwrap_or_else(|| panic!("{screen}"));
    assert!(waits < day && day < screen.find("fin_status_updated").unwrap(), "{screen}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forgetting_a_sink_is_asked_about_on_a_terminal() {
    let app = TestApp::start("[sinks.old]\ntype = \"file\"\npath = \"DIR/old.ndjson\"\n").await;
    let app = TestApp::start_in(app.stop().await, "").await;
    let sandbox = Sandbox::new();
    let forget = |typed: &[u8]| {
        let command = format!("sinks forget old --admin {}", app.admin());
        tokio::task::block_in_place(|| on_terminal(&sandbox, 80, &command, typed))
    };
    let (screen, code) = forget(b"n\n");
    assert!(
        screen.contains("0 undelivered events and 0 dead letters, for good? [y/N]") && code == 1,
        "{code}: {screen}"
    );
    assert!(app.admin_get("/api/v1/sinks").await.1.to_string().contains("\"old\""), "nothing was done");
    let (screen, code) = forget(b"y\n");
    assert!(screen.contains("old is forgotten") && code == 0, "{code}: {screen}");
    app.stop().await;
}

#[test]
fn an_empty_line_does_not_end_a_chat_but_ctrl_d_does() {
    let (screen, code) =
        on_terminal(&Sandbox::new(), 80, "chat --fake --scenario answer --speed 50", b"\n\nHello\n\n\x04");
    assert_eq!(code, 0, "{screen}");
    assert!(screen.contains("Fin  "), "it went on after empty lines: {screen}");
    assert!(screen.ends_with('\n'), "the shell's prompt gets a line of its own: {screen:?}");
}

#[test]
fn completions_and_the_manual_come_from_the_same_definitions() {
    let sandbox = Sandbox::new();
    let script = sandbox.run(&["completions", "bash"]).stdout;
    let checked = Command::new("bash").args(["-n", "-c", &script]).output().unwrap();
    assert!(checked.status.success() && script.contains("retry-dead"), "{checked:?}");
    for shell in ["zsh", "fish"] {
        assert!(sandbox.run(&["completions", shell]).stdout.contains("forward-to"), "{shell}");
    }
    let page = sandbox.run(&["man"]).stdout;
    assert!(page.contains(".TH finhook 1") && page.contains("finhook\\-serve"), "{page}");
    assert_eq!(sandbox.run(&["man", "pages"]).code, 0);
    let pages: BTreeSet<String> = std::fs::read_dir(sandbox.path("pages"))
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    for command in commands(&[]) {
        let name = format!("finhook-{}.1", command.join("-"));
        assert!(pages.contains(&name), "{name}: {pages:?}");
    }
    let serve = std::fs::read_to_string(sandbox.path("pages/finhook-serve.1")).unwrap();
    assert!(serve.contains("finhook serve \\-\\-forward\\-to"), "examples, too: {serve}");
}
