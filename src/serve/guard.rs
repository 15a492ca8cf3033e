//! Who may use a listener of the operator's: whoever has the token; without one, whoever is on this machine and is not a
//! web page.
//!
//! A browser on the operator's machine reaches loopback too, for any page it shows. Such a request is known by its
//! `Origin` or `Sec-Fetch-Site`, and after DNS rebinding by its `Host`: that must be an IP address, `localhost` or a name
//! below it. Where a token is set, which no foreign page has, it may be another name: see [`Hosts`].

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::Problem;

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
    hosts: Hosts,
    /// What is said when the token is missing or wrong.
    unauthorized: &'static str,
}

impl Guard {
    /// Admits whoever presents `token`; `None`: whoever is on this machine. `unauthorized` says which token is meant.
    #[must_use]
    pub fn new(token: Option<&SecretString>, hosts: Hosts, unauthorized: &'static str) -> Self {
        let token = token.map(|token| Sha256::digest(token.expose_secret()).into());
        Self { token, hosts, unauthorized }
    }

    fn check(&self, headers: &HeaderMap) -> Result<(), Problem> {
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
        let Some(token) = &self.token else { return Ok(()) };
        let mut given = headers.get_all(AUTHORIZATION).iter();
        let presented = match (given.next(), given.next()) {
            (Some(value), None) => bearer(value.as_bytes()),
            _ => None,
        };
        let hashed: [u8; 32] = Sha256::digest(presented.unwrap_or_default()).into();
        if presented.is_some() && bool::from(hashed.ct_eq(token)) {
            return Ok(());
        }
        Err(Problem::new(StatusCode::UNAUTHORIZED, self.unauthorized))
    }

    fn is_own(&self, host: &Authority) -> bool {
        let name = host.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        name.parse::<IpAddr>().is_ok()
            || name == "localhost"
            || name.ends_with(".localhost")
            || (self.token.is_some() && !name.is_empty() && (self.hosts == Hosts::Any || !name.contains('.')))
    }
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| rest.trim_ascii())
}

/// The middleware.
pub async fn check(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    match guard.check(request.headers()) {
        Ok(()) => next.run(request).await,
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
        guard.check(&all).map_or_else(|problem| problem.status, |()| 200)
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
