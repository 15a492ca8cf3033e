//! The effective configuration as TOML, for people, with every secret redacted.

use secrecy::SecretString;
use toml::{Table, Value};

use super::{Config, Endpoint, From, Gateway, LogFormat, Match, Sink, SinkKind};

const REDACTED: &str = "<redacted>";

pub(super) fn toml(config: &Config) -> String {
    let mut root = Table::new();
    let format = match config.log.format {
        None => "",
        Some(LogFormat::Json) => "json",
        Some(LogFormat::Text) => "text",
    };
    root.insert("log".into(), table([("format", text(format)), ("level", text(&config.log.level))]));
    let s = &config.server;
    let server = [
        ("bind", text(s.bind)),
        ("max_body_bytes", number(s.max_body_bytes)),
        ("header_timeout", duration(s.header_timeout)),
        ("body_timeout", duration(s.body_timeout)),
        ("idle_timeout", duration(s.idle_timeout)),
        ("max_connections", number(s.max_connections)),
        ("drain_timeout", duration(s.drain_timeout)),
    ];
    root.insert("server".into(), table(server));
    let admin = [("bind", text(config.admin.bind)), ("token", secret(config.admin.token.as_ref()))];
    root.insert("admin".into(), table(admin));
    let endpoints = config.endpoints.iter().map(|(name, e)| (name.as_str(), endpoint(e)));
    root.insert("endpoints".into(), table(endpoints));
    let j = &config.journal;
    let journal = [
        ("path", text(j.path.display())),
        ("retention", duration(j.retention)),
        ("dedupe_window", duration(j.dedupe_window)),
        ("max_bytes", number(j.max_bytes)),
    ];
    root.insert("journal".into(), table(journal));
    let on = config.sinks.iter().map(|(name, s)| (name.as_str(), sink(s)));
    let off = config.disabled_sinks.iter().map(|name| (name.as_str(), table([("enabled", Value::Boolean(false))])));
    root.insert("sinks".into(), table(on.chain(off)));
    let gateway = config.gateway.as_ref().map_or_else(|| table([("bind", text(""))]), gateway);
    root.insert("gateway".into(), gateway);
    root.to_string()
}

fn endpoint(e: &Endpoint) -> Value {
    let secrets = match &e.signing_secrets_file {
        Some(path) => ("signing_secrets_file", text(path.display())),
        None => ("signing_secrets", Value::Array(e.signing_secrets.iter().map(|_| text(REDACTED)).collect())),
    };
    table([("path", text(&e.path)), secrets, ("client_secret", secret(e.client_secret.as_ref()))])
}

fn sink(sink: &Sink) -> Value {
    let mut keys = match &sink.kind {
        SinkKind::Log(log) => vec![("type", text("log")), ("include_body", Value::Boolean(log.include_body))],
        SinkKind::File(file) => vec![
            ("type", text("file")),
            ("path", text(file.path.display())),
            ("rotate_bytes", number(file.rotate_bytes)),
            ("keep", number(file.keep)),
        ],
        SinkKind::Http(http) => {
            let headers = http.headers.iter().map(|(name, _)| (name.as_str(), text(REDACTED)));
            let retry = [
                ("base", duration(http.retry.base)),
                ("cap", duration(http.retry.cap)),
                ("max_age", duration(http.retry.max_age)),
            ];
            vec![
                ("type", text("http")),
                ("url", text(&http.url)),
                ("concurrency", number(http.concurrency)),
                ("timeout", duration(http.timeout)),
                ("headers", table(headers)),
                ("signing_secret", secret(http.signing_secret.as_ref())),
                ("retry", table(retry)),
            ]
        }
    };
    let from = match sink.from {
        From::Now => "now",
        From::Start => "start",
    };
    keys.extend([("from", text(from)), ("match", matching(&sink.matching))]);
    table(keys)
}

fn matching(m: &Match) -> Value {
    table([
        ("endpoints", list(&m.endpoints)),
        ("events", list(&m.events)),
        ("statuses", list(&m.statuses)),
        ("conversation_prefixes", list(&m.conversation_prefixes)),
        ("except_conversation_prefixes", list(&m.except_conversation_prefixes)),
    ])
}

fn gateway(g: &Gateway) -> Value {
    table([
        ("bind", text(g.bind)),
        ("token", secret(g.token.as_ref())),
        ("endpoint", text(&g.endpoint)),
        ("api_key", secret(g.api_key.as_ref())),
        ("base_url", text(&g.base_url)),
        ("version", text(&g.version)),
        ("sse", Value::Boolean(g.sse)),
        ("sse_hosts", list(&g.sse_hosts)),
        ("app_id", text(g.app_id.as_deref().unwrap_or_default())),
    ])
}

fn table<'a>(keys: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
    Value::Table(keys.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

fn text(value: impl ToString) -> Value {
    Value::String(value.to_string())
}

fn list(values: &[String]) -> Value {
    Value::Array(values.iter().map(text).collect())
}

/// Numbers that were loaded fit: they came from an `i64`, or are bounded below it.
fn number(value: impl TryInto<i64>) -> Value {
    Value::Integer(value.try_into().unwrap_or(i64::MAX))
}

/// In one unit, the largest that it is a whole number of: "90d", "75s", "1500ms".
fn duration(value: std::time::Duration) -> Value {
    if !value.subsec_nanos().is_multiple_of(1_000_000) {
        return text(humantime::format_duration(value));
    }
    let ms = value.as_millis();
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms")];
    let whole = units.iter().find(|(unit, _)| ms.is_multiple_of(*unit));
    match whole {
        Some((unit, name)) if ms > 0 => text(format!("{}{name}", ms / unit)),
        _ => text("0s"),
    }
}

/// An empty value is the same as none.
fn secret(value: Option<&SecretString>) -> Value {
    text(value.map_or("", |_| REDACTED))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use proptest::prelude::*;

    use super::duration;

    #[test]
    fn a_length_of_time_is_shown_in_its_largest_whole_unit() {
        for (ms, shown) in [(0, "0s"), (1, "1ms"), (1500, "1500ms"), (75_000, "75s"), (7_776_000_000, "90d")] {
            assert_eq!(duration(Duration::from_millis(ms)).as_str(), Some(shown));
        }
    }

    proptest! {
        #[test]
        fn a_length_of_time_reads_back_as_what_it_was(nanos in 0..3 * 10_u64.pow(18)) {
            // Up to 95 years: by the nanosecond, the millisecond and the second.
            let millis = nanos / 1_000_000;
            let exact = [Duration::from_nanos(nanos), Duration::from_millis(millis), Duration::from_secs(millis / 1000)];
            for value in exact {
                let shown = duration(value);
                prop_assert_eq!(humantime::parse_duration(shown.as_str().unwrap()).unwrap(), value);
            }
        }
    }
}
