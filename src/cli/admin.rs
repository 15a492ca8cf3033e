//! The client of the admin API behind `finhook events` and `finhook sinks`, and how both print.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;

use super::{Failure, Global, client, usage};
use crate::serve::Problem;
use crate::terminal;

/// For a question; each page is bounded work.
const ASK_TIMEOUT: Duration = Duration::from_secs(60);
/// For what may go over the whole journal.
const WORK_TIMEOUT: Duration = Duration::from_secs(60 * 60);
/// A page of events, or an event with its body.
const MAX_ANSWER_BYTES: usize = 2 << 30;

/// Where the admin API is, and how to print.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The admin listener; default: admin.bind of the configuration, on this machine
    #[arg(long, global = true, value_name = "URL", value_parser = usage::web_url)]
    admin: Option<Url>,
    /// Print JSON, one object a line
    #[arg(long, global = true)]
    pub(super) json: bool,
}

/// Calls the admin API.
pub(super) struct Client {
    base: Url,
    token: Option<SecretString>,
    http: reqwest::Client,
}

impl Options {
    /// A client with the token of the configuration.
    pub(super) fn client(&self, global: &Global) -> Result<Client, Failure> {
        let config = global.load()?.config;
        let (base, tls) = match &self.admin {
            Some(url) => (url.clone(), None),
            None => {
                let tls = config.admin.tls.as_ref();
                let origin = client::origin(config.admin.bind, tls)
                    .ok_or_else(|| Failure::new("admin.bind has port 0, so its port is not known: give --admin"))?;
                (origin.parse().map_err(|e| Failure::new(format!("{origin}: {e}")))?, tls)
            }
        };
        Ok(Client { base, token: config.admin.token, http: client::client(ASK_TIMEOUT, tls)? })
    }
}

impl Client {
    /// Asks.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &[&str], query: &impl Serialize) -> Result<T, Failure> {
        let mut url = self.url(path)?;
        if let Ok(Value::Object(pairs)) = serde_json::to_value(query) {
            for (key, value) in pairs {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                url.query_pairs_mut().append_pair(&key, &text);
            }
        }
        self.call(self.http.get(url)).await
    }

    /// Tells.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: Option<&impl Serialize>,
    ) -> Result<T, Failure> {
        let mut request = self.http.post(self.url(path)?).timeout(WORK_TIMEOUT);
        if let Some(body) = body {
            let body = serde_json::to_vec(body).map_err(|e| Failure::new(e.to_string()))?;
            request = request.header(CONTENT_TYPE, "application/json").body(body);
        }
        self.call(request).await
    }

    fn url(&self, path: &[&str]) -> Result<Url, Failure> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| Failure::new("--admin must be a URL such as http://127.0.0.1:9090"))?
            .pop_if_empty()
            .extend(["api", "v1"])
            .extend(path);
        Ok(url)
    }

    async fn call<T: DeserializeOwned>(&self, mut request: reqwest::RequestBuilder) -> Result<T, Failure> {
        if let Some(token) = &self.token {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret()))
                .map_err(|_| Failure::new("admin.token holds characters that can't be sent"))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let shown = crate::config::RelayUrl(self.base.clone()).to_string();
        let hint = "is finhook running, with this admin.bind? --admin names another place";
        let answer = request.send().await.map_err(|e| client::explain(&e, &shown, hint))?;
        let status = answer.status().as_u16();
        let body = crate::body::read(reqwest::Body::from(answer), MAX_ANSWER_BYTES)
            .await
            .map_err(|_| Failure::new(format!("the answer from {shown} broke off")))?;
        if status == 200 {
            return serde_json::from_slice(&body)
                .map_err(|_| Failure::new(format!("{shown} is no finhook, or one of another version")));
        }
        let problem = serde_json::from_slice::<Problem>(&body).map(|problem| problem.detail);
        Err(Failure::new(match (status, problem) {
            (401, _) if self.token.is_none() => {
                "the admin API wants a token: configure admin.token_file (or admin.token) here as for the running finhook".into()
            }
            (401, _) => "the admin API refuses this token: configure the one that the running finhook has (admin.token_file)".into(),
            (_, Ok(detail)) => detail.into_owned(),
            (_, Err(_)) => format!("{shown} answers {status}"),
        }))
    }
}

/// Asks on a terminal; elsewhere the answer is yes, so that scripts need no more than the command.
pub(super) fn confirmed(question: &str, yes: bool) -> Result<bool, Failure> {
    if yes || !is_interactive() {
        return Ok(true);
    }
    let mut err = io::stderr().lock();
    write!(err, "{question} [y/N] ")?;
    err.flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Whether a person can be asked.
pub(super) fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// One JSON object on a line of its own, which steers no terminal.
pub(super) fn json_line(value: &impl Serialize) -> Result<String, Failure> {
    let json = serde_json::to_string(value).map_err(|e| Failure::new(e.to_string()))?;
    Ok(if io::stdout().is_terminal() { terminal::escaped_json(&json) } else { json } + "\n")
}

/// A word as the API spells it.
pub(super) fn word(value: &impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// The width that tables have to fit: the terminal's; in a pipe there is none.
pub(super) fn room() -> Option<usize> {
    io::stdout().is_terminal().then(terminal::width)
}

/// Left-aligned columns, as wide as what is in them. Where they don't fit in `room`, those that may be cut are, the widest first;
/// and as many of the last columns are left out as still have no place.
pub(super) fn table(head: &[&str], rows: &[Vec<String>], may_be_cut: &[&str], room: Option<usize>) -> String {
    const GAP: usize = 2;
    const LEAST: usize = 8;
    let width = |at: usize| {
        let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count());
        cells.chain([head[at].len()]).max().unwrap_or(0)
    };
    let mut widths: Vec<usize> = (0..head.len()).map(width).collect();
    let is_cut = |at: usize, width: usize| may_be_cut.contains(&head[at]) && width > LEAST.max(head[at].len());
    while room.is_some_and(|room| widths.iter().sum::<usize>() + GAP * (widths.len() - 1) > room) {
        let widest = (0..widths.len()).filter(|at| is_cut(*at, widths[*at])).max_by_key(|at| widths[*at]);
        match widest {
            Some(at) => widths[at] -= 1,
            None if widths.len() > 2 => drop(widths.pop()),
            None => break,
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> =
            cells.zip(&widths).map(|(cell, width)| format!("{:width$}", terminal::cut(cell, *width))).collect();
        format!("{}\n", padded.join("  ").trim_end())
    };
    let mut text = line(&mut head.iter().copied());
    for row in rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::table;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["a".to_owned(), "bcd".to_owned()], vec!["äöü".to_owned(), String::new()]];
        assert_eq!(table(&["X", "YY"], &rows, &[], None), "X    YY\na    bcd\näöü\n");
    }

    #[test]
    fn a_table_fits_the_terminal_by_cutting_what_may_be_cut_and_then_by_leaving_columns_out() {
        let rows = [["id".repeat(10), "c".repeat(40), "end".to_owned()].to_vec()];
        let lines = |room| -> Vec<String> {
            let text = table(&["ID", "TEXT", "LAST"], &rows, &["TEXT"], Some(room));
            text.lines().map(str::to_owned).collect()
        };
        assert_eq!(lines(50)[1], format!("{}  {}…  end", "id".repeat(10), "c".repeat(21)));
        assert_eq!(lines(33)[1], format!("{}  {}…", "id".repeat(10), "c".repeat(7)), "no room for the last");
        assert!(lines(10)[1].starts_with(&"id".repeat(10)), "what may not be cut is whole");
    }
}
