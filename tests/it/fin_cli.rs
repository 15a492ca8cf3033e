//! `finhook chat` and `finhook tail`, through the real binary.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::time::Duration;

use finhook::fake_fin::Settings;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::support::command::Sandbox;
use crate::support::fin::World;
use crate::support::wait::PATIENCE;

#[test]
fn a_chat_with_the_stand_in_needs_nothing_else_and_prints_plain_text_in_a_pipe() {
    let sandbox = Sandbox::new();
    let done = sandbox.run(&["chat", "--fake", "--speed", "5", "How do I reset my password?"]);
    assert_eq!((done.code, done.stderr.as_str()), (0, ""));
    assert_eq!(
        done.stdout,
        "You  How do I reset my password?\n\
         Fin  You can reset your password in a minute:\n     \
         1. Open Settings and choose Security.\n     \
         2. Select Reset password.\n     \
         3. Follow the link in the e-mail that we send you.\n"
    );
    assert!(sandbox.listing().is_empty(), "nothing is left behind");
}

#[test]
fn a_chat_shows_escalation_with_its_reason_and_what_a_rating_may_be() {
    let chat =
        |scenario: &str| Sandbox::new().run(&["chat", "--fake", "--speed", "5", "--scenario", scenario, "Hello"]);
    let escalated = chat("escalate");
    assert_eq!(escalated.code, 0);
    assert!(escalated.stdout.contains("· escalated to people: Escalation requested by user\n"), "{}", escalated.stdout);
    let resolved = chat("resolve-csat");
    assert_eq!(resolved.code, 0);
    for part in ["· resolved\n", "· how was it?\n", "  1  😠 Terrible\n", "  5  🤩 Amazing\n"] {
        assert!(resolved.stdout.contains(part), "{part} in {}", resolved.stdout);
    }
    let unknown = chat("unknown-event");
    assert!(unknown.stdout.contains("does not know: fin_procedure_started"), "{}", unknown.stdout);
}

#[test]
fn a_chat_goes_on_for_as_long_as_there_is_something_to_say() {
    let done = Sandbox::new().run_with(&["chat", "--fake", "--speed", "5"], b"My password?\n\nAnd then?\n");
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(
        done.stdout.contains("You can reset your password") && done.stdout.contains("help centre"),
        "{}",
        done.stdout
    );
    assert_eq!(done.stdout.matches("Fin  ").count(), 2, "{}", done.stdout);
}

#[test]
fn a_chat_without_gateway_says_what_to_do() {
    let done = Sandbox::new().run(&["chat", "Hello"]);
    assert_eq!((done.code, done.stdout.as_str()), (1, ""));
    assert!(done.stderr.contains("gateway.bind") && done.stderr.contains("--fake"), "{}", done.stderr);
}

/// A running `finhook tail`, whose lines come through a channel.
struct Tail {
    child: Child,
    lines: mpsc::Receiver<Value>,
    _sandbox: Sandbox,
}

impl Tail {
    fn start(admin: SocketAddr, args: &[&str]) -> Self {
        let sandbox = Sandbox::new().var("FINHOOK__ADMIN__BIND", &admin.to_string());
        let args = ["tail"].into_iter().chain(args.iter().copied());
        let mut child = sandbox.command(args).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel(16);
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                // In a pipe each line is a JSON object.
                if sender.blocking_send(serde_json::from_str(&line).unwrap()).is_err() {
                    return;
                }
            }
        });
        Self { child, lines, _sandbox: sandbox }
    }

    async fn next(&mut self) -> Value {
        timeout(PATIENCE, self.lines.recv()).await.expect("in time").expect("tail goes on")
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn numbered(number: u32) -> Value {
    let created = format!("2099-01-24T10:00:{:02}.000Z", number % 60);
    json!({"event_name": "counted", "conversation_id": format!("c{}", number % 3), "created_at_ms": created, "number": number})
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_prints_what_is_asked_for_as_json_lines() {
    let world = World::start(Settings::default(), false).await;
    for number in 0..9 {
        world.webhook(&numbered(number)).await;
    }
    let mut tail = Tail::start(world.app.admin(), &["--since", "1h", "--conversation", "c1", "--event", "counted"]);
    for number in [1, 4, 7] {
        let line = tail.next().await;
        assert_eq!((&line["data"]["number"], &line["specversion"]), (&json!(number), &json!("1.0")));
    }
    world.webhook(&numbered(10)).await;
    assert_eq!(tail.next().await["data"]["number"], 10, "and what comes from now on");
    drop(tail);
    world.stop().await;
}

/// Passes connections on, each cut off after some bytes of its answer.
async fn cutter(target: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut rng = fastrand::Rng::with_seed(4);
        // A first connection that fails is the user's to know; later ones may be cut off in their heads, too.
        let mut least = 400;
        while let Ok((client, _)) = listener.accept().await {
            // The head alone is about 200 bytes, an event about 500.
            let left = rng.usize(least..4000);
            least = 50;
            tokio::spawn(cut(client, target, left));
        }
    });
    addr
}

async fn cut(mut client: TcpStream, target: SocketAddr, mut left: usize) -> std::io::Result<()> {
    let mut server = TcpStream::connect(target).await?;
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let down = async {
        let mut buffer = [0; 512];
        while left > 0 {
            let most = left.min(buffer.len());
            let length = from_server.read(&mut buffer[..most]).await?;
            if length == 0 {
                break;
            }
            to_client.write_all(&buffer[..length]).await?;
            left -= length;
        }
        std::io::Result::Ok(())
    };
    tokio::select! {
        done = down => done,
        done = tokio::io::copy(&mut from_client, &mut to_server) => done.map(drop),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_goes_on_where_it_was_when_its_connection_breaks() {
    let world = World::start(Settings::default(), false).await;
    for number in 0..60 {
        world.webhook(&numbered(number)).await;
    }
    let mut tail = Tail::start(cutter(world.app.admin()).await, &["--since", "1h"]);
    for number in 0..60 {
        assert_eq!(tail.next().await["data"]["number"], number, "each once, in order");
    }
    let more = timeout(Duration::from_millis(50), tail.lines.recv()).await;
    assert!(more.is_err(), "and no more: {more:?}");
    drop(tail);
    world.stop().await;
}
