//! Who may use the gateway.
//!
//! With a token: whoever presents it. Without one the gateway is bound to loopback, and everyone on this machine may,
//! but no web page that a browser on it shows: a foreign `Host` (DNS rebinding), `Origin` or `Sec-Fetch-Site` is
//! refused.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

use crate::serve::problem;
use crate::source::sse::allow::is_localhost;

/// Compares tokens.
#[derive(Debug)]
pub(super) struct Guard {
    token: Option<SecretString>,
}

impl Guard {
    pub(super) fn new(token: Option<SecretString>) -> Self {
        Self { token }
    }

    fn admits(&self, headers: &HeaderMap) -> Result<(), StatusCode> {
        if is_foreign(headers) {
            return Err(StatusCode::FORBIDDEN);
        }
        let Some(token) = &self.token else { return Ok(()) };
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return Err(StatusCode::UNAUTHORIZED) };
        let presented = match value.as_bytes().split_at_checked("Bearer ".len()) {
            Some((scheme, presented)) if scheme.eq_ignore_ascii_case(b"Bearer ") => presented,
            _ => return Err(StatusCode::UNAUTHORIZED),
        };
        // Only the length can be told from how long this takes.
        let same = bool::from(presented.ct_eq(token.expose_secret().as_bytes()));
        if same { Ok(()) } else { Err(StatusCode::UNAUTHORIZED) }
    }
}

/// The middleware.
pub(super) async fn check(State(guard): State<Arc<Guard>>, mut request: Request, next: Next) -> Response {
    let admitted = match &guard.token {
        None if !has_local_host(request.headers()) => Err(StatusCode::FORBIDDEN),
        _ => guard.admits(request.headers()),
    };
    match admitted {
        Ok(()) => {
            // Nobody behind this point has any use for it.
            request.headers_mut().remove(header::AUTHORIZATION);
            next.run(request).await
        }
        Err(StatusCode::UNAUTHORIZED) => {
            let mut refused = problem(StatusCode::UNAUTHORIZED, "The token is missing or wrong.");
            refused.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            refused
        }
        Err(_) => problem(StatusCode::FORBIDDEN, "This is not for web pages."),
    }
}

/// Whether a browser says that another site's page sent this.
fn is_foreign(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    headers.contains_key(header::ORIGIN) || site.is_some_and(|site| !matches!(site, b"same-origin" | b"none"))
}

/// Whether `Host` is this machine by its own names.
fn has_local_host(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else { return false };
    let Ok(authority) = host.parse::<axum::http::uri::Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.parse::<std::net::IpAddr>().map_or_else(|_| is_localhost(name), |ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        list.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn only_the_whole_token_is_admitted() {
        let guard = Guard::new(Some(SecretString::from("token-1")));
        assert_eq!(guard.admits(&headers(&[("authorization", "Bearer token-1")])), Ok(()));
        assert_eq!(guard.admits(&headers(&[("authorization", "bearer token-1")])), Ok(()));
        for bad in ["Bearer token-", "Bearer token-12", "Bearer ", "Basic token-1", "token-1", "Bearer  token-1"] {
            assert_eq!(guard.admits(&headers(&[("authorization", bad)])), Err(StatusCode::UNAUTHORIZED), "{bad}");
        }
        assert_eq!(guard.admits(&HeaderMap::new()), Err(StatusCode::UNAUTHORIZED));
        let mut twice = HeaderMap::new();
        twice.append(header::AUTHORIZATION, HeaderValue::from_static("Bearer token-1"));
        twice.append(header::AUTHORIZATION, HeaderValue::from_static("Bearer token-1"));
        assert_eq!(guard.admits(&twice), Err(StatusCode::UNAUTHORIZED));
    }

    #[test]
    fn web_pages_are_kept_out() {
        let guard = Guard::new(None);
        assert_eq!(guard.admits(&headers(&[("sec-fetch-site", "none")])), Ok(()));
        assert_eq!(guard.admits(&headers(&[("sec-fetch-site", "cross-site")])), Err(StatusCode::FORBIDDEN));
        assert_eq!(guard.admits(&headers(&[("origin", "https://evil.example")])), Err(StatusCode::FORBIDDEN));
        for good in ["127.0.0.1:8090", "localhost", "[::1]:8090", "app.localhost:1"] {
            assert!(has_local_host(&headers(&[("host", good)])), "{good}");
        }
        for bad in ["evil.example", "10.0.0.1:8090", "localhost.evil.example", ""] {
            assert!(!has_local_host(&headers(&[("host", bad)])), "{bad}");
        }
    }
}
