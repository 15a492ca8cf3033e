//! `finhook send`

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use secrecy::SecretString;
use serde_json::Value;
use url::Url;

use super::sample::Samples;
use super::sign::{With, no_secret, read};
use super::{FAILED, Failure, Global, client, print, usage};
use crate::certificate::Files;
use crate::clock;
use crate::config::{Config, Endpoint};
use crate::terminal;
use crate::verify::Scheme;

/// Longer than finhook takes for any answer with its built-in limits.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Sign a sample event and post it to a running receiver.
///
/// Prints one line an answer: status, id, outcome. Exit code 1 when one of them is not 200.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Events: fin_replied, fin_status_updated, csat_requested, fin_reply_chunk, or any other name; for an endpoint of kind intercom
the topic of a classic webhook, such as conversation.admin.replied.

Examples:
  finhook send                                   # fin_replied, with the configured secret
  finhook send csat_requested --conversation 123456
  finhook send --count 100
  finhook send --file body.json                  # exactly these bytes
  finhook send --url https://hooks.example.com/webhooks/fin --secret \"$SECRET\"")]
pub(super) struct Args {
    /// Name of the event
    #[arg(default_value = "fin_replied")]
    event: String,
    /// Where to post; default: the configured endpoint on this machine
    #[arg(long, value_parser = usage::web_url)]
    url: Option<Url>,
    /// The event's conversation_id
    #[arg(long, default_value = "finhook-sample", value_name = "ID")]
    conversation: String,
    /// Post exactly the bytes of this file (`-`: stdin) instead of a sample
    #[arg(long, conflicts_with_all = ["event", "conversation"], value_name = "BODY.json")]
    file: Option<PathBuf>,
    /// How many; each sample has its own ids and times, a file's bytes are sent again
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    count: u32,
    #[command(flatten)]
    with: With,
}

pub(super) fn run(args: Args, global: &Global) -> Result<ExitCode, Failure> {
    let to = match (&args.url, args.with.given()) {
        (Some(url), Some(secret)) => To { url: url.clone(), tls: None, scheme: Scheme::Fin, secret },
        (url, secret) => configured(url.clone(), secret, &args.with, &global.load()?.config)?,
    };
    let mut samples = Samples::new(to.scheme, args.event, args.conversation);
    let file = args.file.map(|file| read(Some(&file))).transpose()?;
    let next = || file.clone().unwrap_or_else(|| samples.next(clock::now_ms()));
    let all_good = client::block_on(send(&to, args.count, next))?;
    Ok(if all_good { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// Where to post, and how to sign.
struct To {
    url: Url,
    /// The certificate of a listener of this configuration.
    tls: Option<Files>,
    scheme: Scheme,
    secret: SecretString,
}

/// What the command line leaves open, from the configuration.
fn configured(url: Option<Url>, secret: Option<SecretString>, with: &With, config: &Config) -> Result<To, Failure> {
    let (name, endpoint) = match with.named(config)? {
        Some(named) => named,
        None => pick(config, url.as_ref())?,
    };
    let (url, tls) = match url {
        Some(url) => (url, None),
        None => {
            let tls = config.server.tls.clone();
            let origin = client::origin(config.server.bind, tls.as_ref())
                .ok_or_else(|| Failure::new("server.bind has port 0, so its port is not known: give --url"))?;
            let url = format!("{origin}{}", endpoint.path);
            (url.parse().map_err(|e| Failure::new(format!("{url}: {e}")))?, tls)
        }
    };
    match secret.or_else(|| endpoint.secrets.first().cloned()) {
        Some(secret) => Ok(To { url, tls, scheme: endpoint.kind, secret }),
        None => Err(no_secret(name, endpoint.kind)),
    }
}

/// The endpoint that the URL leads to, else the first one.
fn pick<'a>(config: &'a Config, url: Option<&Url>) -> Result<(&'a str, &'a Endpoint), Failure> {
    let mut all = config.endpoints.iter().map(|(name, endpoint)| (name.as_str(), endpoint));
    let by_path = url.and_then(|url| all.clone().find(|(_, endpoint)| endpoint.path == url.path()));
    by_path.or_else(|| all.next()).ok_or_else(|| Failure::new("no endpoint is configured"))
}

/// Posts one after the other; false when an answer was not 200.
async fn send(to: &To, count: u32, mut next: impl FnMut() -> Vec<u8>) -> Result<bool, Failure> {
    let To { url, tls, scheme, secret } = to;
    let client = client::client(TIMEOUT, tls.as_ref())?;
    // The URL may hold credentials of a proxy in front.
    let shown = crate::config::RelayUrl(url.clone()).to_string();
    let explain = |e: reqwest::Error| {
        client::explain(&e, &shown, "is it running? `finhook serve` starts it; --url posts to another place")
    };
    let mut all_good = true;
    for _ in 0..count {
        let body = next();
        let request = client
            .post(url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(scheme.header(), scheme.sign(secret, &body))
            .body(body);
        let answer = request.send().await.map_err(explain)?;
        let status = answer.status().as_u16();
        let body = client::body(answer).await;
        print(&line(status, &body))?;
        all_good &= status == 200;
    }
    Ok(all_good)
}

/// Status, id and outcome of an answer; for an error `-` and its title.
fn line(status: u16, body: &[u8]) -> String {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |key: &str| answer.get(key).and_then(Value::as_str).map(shown);
    let id = text("id").unwrap_or_else(|| "-".into());
    let outcome = text("outcome").or_else(|| text("detail")).or_else(|| text("title"));
    let hint = if status == 401 { " (is it the receiver's signing secret?)" } else { "" };
    format!("{status} {id} {}{hint}\n", outcome.unwrap_or_else(|| "-".into()))
}

/// An answer may come from anywhere: nothing that steers the terminal, and not too much.
fn shown(text: &str) -> String {
    terminal::cut(&terminal::printable(text), 200)
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn an_answer_is_one_line_of_status_id_and_outcome() {
        assert_eq!(line(200, br#"{"id":"0190","outcome":"accepted"}"#), "200 0190 accepted\n");
        assert_eq!(line(503, br#"{"title":"Not ready","status":503}"#), "503 - Not ready\n");
        assert_eq!(line(502, b"<html>"), "502 - -\n");
        assert_eq!(line(200, b"{\"id\":\"a\\n\\u001b[31mb\"}"), "200 a\u{fffd}\u{fffd}[31mb -\n");
    }
}
