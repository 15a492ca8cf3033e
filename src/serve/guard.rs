//! Who may use a listener of the operator's: whoever has the token; without one, whoever is on this machine and is not a
//! web page.
//!
//! A browser on the operator's machine reaches loopback too, for any page it shows. Such a request is known by its
//! `Origin` or `Sec-Fetch-Site`, and after DNS rebinding by its `Host`: that must be an IP address, `localhost` or a name
//! below it. Where a token is set, which no foreign page has, it may be another name: see [`Hosts`].
//!
//! A second token may admit those who look only ([`Role::Reader`]), and a [session](super::session) a browser in which somebody has
//! presented one of the two. What a session may do here is look: it goes with every request that a browser makes, so a change by it
//! needs more than that.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::Problem;
use super::session::Sessions;

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    Operator,
    /// Look, with bodies masked, and change nothing.
    Reader,
}

/// Who makes a request: for what it may do, and for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// What it may do.
    pub role: Role,
    /// How it was known.
    pub by: By,
}

/// How somebody was known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum By {
    /// It is on this machine, and no token is configured.
    Machine,
    /// It presented a token.
    Token,
    /// It logged in to the console: the session's name in the log.
    Session(Arc<str>),
}

impl Caller {
    /// Whether bodies are to be kept from it.
    #[must_use]
    pub fn is_reader(&self) -> bool {
        self.role == Role::Reader
    }
}

impl std::fmt::Display for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let role = if self.is_reader() { "reader" } else { "operator" };
        match &self.by {
            By::Machine => f.write_str("this machine"),
            By::Token => write!(f, "{role}, by token"),
            By::Session(name) => write!(f, "{role}, session {name}"),
        }
    }
}

/// Names that a listener with a token may be called by, besides IP addresses and `localhost`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hosts {
    /// Those without a dot, as containers have: for people and their tools.
    WithoutDot,
    /// Any: for programs, which find it by whatever name it has.
    Any,
}

/// The check in front of a listener.
#[derive(Debug)]
pub struct Guard {
    /// Hashed, so that comparing takes the same time whatever is presented.
    token: Option<[u8; 32]>,
    /// The same of the token for those who look only.
    reader: Option<[u8; 32]>,
    sessions: Sessions,
    hosts: Hosts,
    /// What is said when the token is missing or wrong.
    unauthorized: &'static str,
}

impl Guard {
    /// Admits whoever presents `token`; `None`: whoever is on this machine. `unauthorized` says which token is meant.
    #[must_use]
    pub fn new(token: Option<&SecretString>, hosts: Hosts, unauthorized: &'static str) -> Self {
        Self { token: token.map(hash), reader: None, sessions: Sessions::default(), hosts, unauthorized }
    }

    /// Also admits whoever presents `reader`, to look only.
    #[must_use]
    pub fn reader(self, reader: Option<&SecretString>) -> Self {
        Self { reader: reader.map(hash), ..self }
    }

    /// Also admits browsers with a session, to look only.
    #[must_use]
    pub fn sessions(self, sessions: Sessions) -> Self {
        Self { sessions, ..self }
    }

    /// The sessions that it admits.
    #[must_use]
    pub fn browsers(&self) -> &Sessions {
        &self.sessions
    }

    /// Whether anybody on this machine may do everything.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.token.is_none()
    }

    /// What whoever knows this token may do.
    #[must_use]
    pub fn role(&self, token: &[u8]) -> Option<Role> {
        let hashed: [u8; 32] = Sha256::digest(token).into();
        let is = |known: &Option<[u8; 32]>| known.is_some_and(|known| bool::from(hashed.ct_eq(&known)));
        let (operator, reader) = (is(&self.token), is(&self.reader));
        if operator { Some(Role::Operator) } else { reader.then_some(Role::Reader) }
    }

    /// Whether a request was meant for this listener, and is not that of another site's page.
    ///
    /// # Errors
    /// 403.
    pub fn own(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let forbidden = |detail: &'static str| Err(Problem::new(StatusCode::FORBIDDEN, detail));
        let mut hosts = headers.get_all(HOST).iter();
        let host = hosts.next().and_then(|host| host.to_str().ok()).and_then(|host| host.parse::<Authority>().ok());
        let Some(host) = host.filter(|host| hosts.next().is_none() && self.is_own(host)) else {
            return forbidden("Host must be an IP address or localhost (where a token is set also a name)");
        };
        for origin in headers.get_all(ORIGIN) {
            let rest = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
            if rest.is_none_or(|(_, rest)| !rest.eq_ignore_ascii_case(host.as_str())) {
                return forbidden("no page of another origin may use this");
            }
        }
        for site in headers.get_all("sec-fetch-site") {
            if !matches!(site.as_bytes(), b"same-origin" | b"none") {
                return forbidden("no page of another site may use this");
            }
        }
        Ok(())
    }

    fn check(&self, method: &Method, headers: &HeaderMap) -> Result<Caller, Problem> {
        self.own(headers)?;
        let looks = method.is_safe();
        let caller = self.by_token(headers).or_else(|| self.sessions.caller(headers).filter(|_| looks));
        let caller = caller.ok_or_else(|| Problem::new(StatusCode::UNAUTHORIZED, self.unauthorized))?;
        if caller.is_reader() && !looks {
            return Err(Problem::new(StatusCode::FORBIDDEN, "this token is for looking: changes need admin.token"));
        }
        Ok(caller)
    }

    fn by_token(&self, headers: &HeaderMap) -> Option<Caller> {
        if self.token.is_none() {
            return Some(Caller { role: Role::Operator, by: By::Machine });
        }
        let mut given = headers.get_all(AUTHORIZATION).iter();
        let presented = match (given.next(), given.next()) {
            (Some(value), None) => bearer(value.as_bytes()),
            _ => None,
        };
        Some(Caller { role: self.role(presented?)?, by: By::Token })
    }

    fn is_own(&self, host: &Authority) -> bool {
        let name = host.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        name.parse::<IpAddr>().is_ok()
            || name == "localhost"
            || name.ends_with(".localhost")
            || (self.token.is_some() && !name.is_empty() && (self.hosts == Hosts::Any || !name.contains('.')))
    }
}

fn hash(token: &SecretString) -> [u8; 32] {
    Sha256::digest(token.expose_secret()).into()
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| rest.trim_ascii())
}

/// The middleware. What is behind it finds the [`Caller`] among the request's extensions.
pub async fn check(State(guard): State<Arc<Guard>>, mut request: Request, next: Next) -> Response {
    match guard.check(request.method(), request.headers()) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn check(token: Option<&str>, headers: &[(&str, &str)]) -> u16 {
        check_for(Hosts::WithoutDot, token, headers)
    }

    fn check_for(hosts: Hosts, token: Option<&str>, headers: &[(&str, &str)]) -> u16 {
        let map = headers
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap()));
        let mut all = HeaderMap::new();
        for (name, value) in map {
            all.append(name, value);
        }
        let guard = Guard::new(token.map(SecretString::from).as_ref(), hosts, "present the token");
        guard.check(&Method::POST, &all).map_or_else(|problem| problem.status, |_| 200)
    }

    #[test]
    fn the_readers_token_looks_and_changes_nothing() {
        let tokens = ["operator", "reader"].map(SecretString::from);
        let guard = Guard::new(Some(&tokens[0]), Hosts::WithoutDot, "present the token").reader(Some(&tokens[1]));
        let check = |method: Method, token: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("host", HeaderValue::from_static("127.0.0.1"));
            headers.insert("authorization", HeaderValue::from_str(&format!("Bearer {token}")).unwrap());
            guard.check(&method, &headers).map(|caller| caller.role).map_err(|problem| problem.status)
        };
        assert_eq!(check(Method::POST, "operator"), Ok(Role::Operator));
        assert_eq!(check(Method::GET, "reader"), Ok(Role::Reader));
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
            assert_eq!(check(method, "reader"), Err(403));
        }
        assert_eq!(check(Method::GET, "operato"), Err(401));
    }

    #[test]
    fn only_the_whole_token_opens() {
        let with = |value: &str| check(Some("token-1"), &[("host", "127.0.0.1:9090"), ("authorization", value)]);
        assert_eq!(with("Bearer token-1"), 200);
        assert_eq!(with("bearer token-1"), 200);
        for wrong in ["Bearer token-", "Bearer token-12", "Bearer ", "Bearer", "Basic token-1", "token-1", ""] {
            assert_eq!(with(wrong), 401, "{wrong:?}");
        }
        assert_eq!(check(Some("token-1"), &[("host", "127.0.0.1")]), 401);
        let twice = [("host", "::1"), ("authorization", "Bearer token-1"), ("authorization", "Bearer token-1")];
        assert_ne!(check(Some("token-1"), &twice), 200);
    }

    #[test]
    fn web_pages_are_kept_out() {
        for host in ["127.0.0.1:9090", "[::1]:9090", "localhost", "LOCALHOST:1", "app.localhost:9090", "192.0.2.7"] {
            assert_eq!(check(None, &[("host", host)]), 200, "{host}");
        }
        for host in ["evil.example", "localhost.evil.example:9090", "finhook", "", "127.0.0.1.evil.example"] {
            assert_eq!(check(None, &[("host", host)]), 403, "{host}");
        }
        assert_eq!(check(Some("t"), &[("host", "finhook:9090"), ("authorization", "Bearer t")]), 200);
        let named = [("host", "finhook.internal:8090"), ("authorization", "Bearer t")];
        assert_eq!(check(Some("t"), &named), 403);
        assert_eq!(check_for(Hosts::Any, Some("t"), &named), 200);
        assert_eq!(check_for(Hosts::Any, Some("t"), &named[..1]), 401);
        assert_eq!(check_for(Hosts::Any, None, &named[..1]), 403);
        let from = |name, value| check(None, &[("host", "127.0.0.1:9090"), (name, value)]);
        assert_eq!(from("origin", "http://127.0.0.1:9090"), 200);
        for origin in ["https://evil.example", "null", "http://127.0.0.1:3000", "http://127.0.0.1:9090.evil.example"] {
            assert_eq!(from("origin", origin), 403, "{origin}");
        }
        assert_eq!(from("sec-fetch-site", "none"), 200);
        assert_eq!(from("sec-fetch-site", "same-origin"), 200);
        assert_eq!(from("sec-fetch-site", "cross-site"), 403);
        assert_eq!(from("sec-fetch-site", "same-site"), 403);
    }
}
