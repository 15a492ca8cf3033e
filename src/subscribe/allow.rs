//! Which event streams may be listened to: a pure check of a URL before any name is looked up or connection made.

use std::net::IpAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use url::{Host, Url};

/// How long a token lives when it doesn't say.
pub const TOKEN_LIFE: Duration = Duration::from_secs(180);
/// Longest life that a token is believed to have.
const LONGEST_LIFE: Duration = Duration::from_secs(600);

/// Why an event stream is not listened to. Says nothing of the URL: it is a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not a URL, or one with user info.
    #[error("it is not a plain URL")]
    Url,
    /// Neither https nor loopback.
    #[error("its scheme is not https")]
    Scheme,
    /// Not in `gateway.sse_hosts`.
    #[error("its host is not one of gateway.sse_hosts")]
    Host,
    /// Not one channel `fin_agent_api:{app}:{conversation}`, or no token.
    #[error("it is not a subscription to one conversation")]
    Channel,
    /// The app is another one, or none is known.
    #[error("its app is not the one configured as gateway.app_id or learnt from Fin's answers")]
    App,
    /// As many streams as there may be are open.
    #[error("too many event streams are open")]
    Busy,
}

/// A URL that may be listened to.
#[derive(Clone, PartialEq, Eq)]
pub struct Subscription {
    /// Holds a token: never shown.
    pub url: Url,
    /// The app that it names.
    pub app: Box<str>,
    /// The conversation that it names.
    pub conversation: Box<str>,
    /// How long its token can be used.
    pub life: Duration,
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription").field("conversation", &self.conversation).finish_non_exhaustive()
    }
}

impl Subscription {
    /// Checks a URL against the allowed hosts (`host`, `host:port` or `*.domain`, lower case). The app is for the
    /// caller to check. `now_s` is unix seconds.
    ///
    /// # Errors
    /// Why it may not be listened to.
    pub fn parse(url: &str, hosts: &[String], now_s: i64) -> Result<Self, Refused> {
        let mut url = Url::parse(url).map_err(|_| Refused::Url)?;
        if !url.username().is_empty() || url.password().is_some() || url.host().is_none() {
            return Err(Refused::Url);
        }
        if !(url.scheme() == "https" || (url.scheme() == "http" && is_loopback(&url))) {
            return Err(Refused::Scheme);
        }
        if !hosts.iter().any(|pattern| matches(&url, pattern)) {
            return Err(Refused::Host);
        }
        url.set_fragment(None);
        let channel = one(&url, "channels").ok_or(Refused::Channel)?;
        let token = one(&url, "accessToken").filter(|token| !token.is_empty()).ok_or(Refused::Channel)?;
        let life = life(&token, now_s);
        let named = channel.strip_prefix("fin_agent_api:").and_then(|rest| rest.split_once(':'));
        let (app, conversation) = named.ok_or(Refused::Channel)?;
        // A comma could name a second channel.
        if app.is_empty() || conversation.is_empty() || channel.contains(',') {
            return Err(Refused::Channel);
        }
        Ok(Self { app: app.into(), conversation: conversation.into(), life, url })
    }
}

/// Whether the host is this machine by what the URL says. A name's addresses are checked when they are looked up.
fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => is_localhost(name),
        None => false,
    }
}

/// Names that mean this machine (RFC 6761).
pub fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

/// Whether a name that was looked up may have this address: `localhost` is this machine, and no other name leads to
/// this machine or into the private network that it stands in.
pub fn may_have(name: &str, address: IpAddr) -> bool {
    if is_localhost(name) {
        return address.to_canonical().is_loopback();
    }
    !crate::outbound::is_private(address)
}

/// `*.domain` stands for every name below the domain, at the default port; `host` for the default port too, and on
/// loopback for any; `host:port` for just that.
fn matches(url: &Url, pattern: &str) -> bool {
    let Some(host) = url.host_str() else { return false };
    let host = host.strip_suffix('.').unwrap_or(host);
    let default_port = url.port().is_none();
    if let Some(domain) = pattern.strip_prefix("*.") {
        let below = host.strip_suffix(domain).and_then(|rest| rest.strip_suffix('.'));
        return matches!(url.host(), Some(Host::Domain(_)))
            && default_port
            && below.is_some_and(|rest| !rest.is_empty());
    }
    if pattern == host {
        return default_port || is_loopback(url);
    }
    let port = url.port_or_known_default();
    port.is_some_and(|port| pattern.rsplit_once(':') == Some((host, port.to_string().as_str())))
}

/// The value of a query parameter that must be there once.
fn one(url: &Url, name: &str) -> Option<String> {
    let mut values = url.query_pairs().filter(|(key, _)| key == name).map(|(_, value)| value.into_owned());
    let value = values.next()?;
    values.next().is_none().then_some(value)
}

/// How long a token can be used: what a readable JWT says, else three minutes. From `iat` to `exp` where both are
/// there, which needs no agreement of clocks.
fn life(token: &str, now_s: i64) -> Duration {
    #[derive(Deserialize)]
    struct Claims {
        exp: Option<i64>,
        iat: Option<i64>,
    }
    let claims = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part.trim_end_matches('=')).ok());
    let claims = claims.and_then(|bytes| serde_json::from_slice::<Claims>(&bytes).ok());
    let seconds = claims.and_then(|claims| claims.exp?.checked_sub(claims.iat.unwrap_or(now_s)));
    match seconds {
        Some(seconds) => Duration::from_secs(u64::try_from(seconds).unwrap_or(0)).min(LONGEST_LIFE),
        None => TOKEN_LIFE,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const QUERY: &str = "event-stream?channels=fin_agent_api:app1:fin:test:7&accessToken=abc&rewind=2m";

    fn hosts(patterns: &[&str]) -> Vec<String> {
        patterns.iter().map(|pattern| (*pattern).to_owned()).collect()
    }

    fn check(origin: &str, patterns: &[&str]) -> Result<(), Refused> {
        Subscription::parse(&format!("{origin}/{QUERY}"), &hosts(patterns), 0).map(|_| ())
    }

    #[test]
    fn a_url_of_an_allowed_host_names_its_app_and_conversation() {
        let url = format!("https://nexus-a.intercom-messenger.com/{QUERY}");
        let parsed = Subscription::parse(&url, &hosts(&["*.intercom-messenger.com"]), 0).unwrap();
        assert_eq!((&*parsed.app, &*parsed.conversation, parsed.life), ("app1", "fin:test:7", TOKEN_LIFE));
        assert!(!format!("{parsed:?}").contains("abc"), "the token is not shown");
    }

    #[test]
    fn only_listed_hosts_are_allowed() {
        let wild = &["*.intercom-messenger.com"][..];
        for good in [
            "https://a.intercom-messenger.com",
            "https://A.B.Intercom-Messenger.COM",
            "https://a.intercom-messenger.com.",
        ] {
            assert_eq!(check(good, wild), Ok(()), "{good}");
        }
        for bad in [
            "https://intercom-messenger.com",
            "https://evil-intercom-messenger.com",
            "https://a.intercom-messenger.com.evil.example",
            "https://a.intercom-messenger.com:8443",
            "https://10.0.0.1",
            "https://[::1]",
            "https://127.0.0.1",
        ] {
            assert_eq!(check(bad, wild), Err(Refused::Host), "{bad}");
        }
        assert_eq!(check("https://user@a.intercom-messenger.com", wild), Err(Refused::Url));
        assert_eq!(check("https://a.intercom-messenger.com@evil.example", wild), Err(Refused::Url));
        assert_eq!(check("https://1.2.3.4", &["*.3.4"]), Err(Refused::Host), "a wildcard stands for names only");
        assert_eq!(check("https://h.example:8443", &["h.example:8443"]), Ok(()));
        assert_eq!(check("https://h.example:8444", &["h.example:8443", "h.example"]), Err(Refused::Host));
        assert_eq!(check("http://127.0.0.1:4321", &["127.0.0.1"]), Ok(()));
        assert_eq!(check("http://127.0.0.1:4321", &["127.0.0.1:4322"]), Err(Refused::Host));
    }

    #[test]
    fn only_https_is_allowed_unless_on_this_machine() {
        let all = &["h.example", "localhost", "[::1]", "127.0.0.1", "10.0.0.1"][..];
        assert_eq!(check("http://h.example", all), Err(Refused::Scheme));
        assert_eq!(check("http://10.0.0.1", all), Err(Refused::Scheme));
        assert_eq!(check("file://h.example", all), Err(Refused::Scheme));
        assert_eq!(check("ws://127.0.0.1", all), Err(Refused::Scheme));
        for good in ["http://localhost:1", "http://[::1]:1", "http://127.0.0.1"] {
            assert_eq!(check(good, all), Ok(()), "{good}");
        }
    }

    #[test]
    fn exactly_one_channel_of_one_conversation_is_allowed() {
        let parse =
            |query: &str| Subscription::parse(&format!("https://h.example/s?{query}"), &hosts(&["h.example"]), 0);
        for bad in [
            "accessToken=t",
            "channels=fin_agent_api:a:c",
            "channels=fin_agent_api:a:c&accessToken=",
            "channels=other:a:c&accessToken=t",
            "channels=fin_agent_api:a&accessToken=t",
            "channels=fin_agent_api::c&accessToken=t",
            "channels=fin_agent_api:a:&accessToken=t",
            "channels=fin_agent_api:a:c,fin_agent_api:b:d&accessToken=t",
            "channels=fin_agent_api:a:c&channels=fin_agent_api:b:d&accessToken=t",
        ] {
            assert_eq!(parse(bad).err(), Some(Refused::Channel), "{bad}");
        }
    }

    #[test]
    fn names_do_not_lead_into_the_private_network() {
        for private in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "::1",
            "fd00::1",
            "fe80::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::",
        ] {
            assert!(!may_have("a.intercom-messenger.com", private.parse().unwrap()), "{private}");
        }
        assert!(may_have("a.intercom-messenger.com", "93.184.216.34".parse().unwrap()));
        assert!(may_have("a.intercom-messenger.com", "2606:4700::1".parse().unwrap()));
        assert!(may_have("localhost", "127.0.0.1".parse().unwrap()));
        assert!(!may_have("localhost", "93.184.216.34".parse().unwrap()), "localhost is this machine only");
    }

    #[test]
    fn a_readable_token_says_how_long_it_lives() {
        let token = |claims: &str| format!("e30.{}.sig", URL_SAFE_NO_PAD.encode(claims));
        assert_eq!(life(&token(r#"{"iat":1000,"exp":1180}"#), 77), Duration::from_secs(180));
        assert_eq!(life(&token(r#"{"exp":1180}"#), 1100), Duration::from_secs(80));
        assert_eq!(life(&token(r#"{"exp":1180}"#), 2000), Duration::ZERO);
        assert_eq!(life(&token(r#"{"exp":99999999}"#), 0), LONGEST_LIFE);
        assert_eq!(life(&token("{}"), 0), TOKEN_LIFE);
        assert_eq!(life("opaque", 0), TOKEN_LIFE);
    }
}
