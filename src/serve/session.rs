//! Sessions: a browser in which somebody has presented a token, for as long as a working day.
//!
//! A session is a cookie that nobody can make who has not the token: role, end, a random name, and an HMAC over them whose key is
//! derived from the token. So nothing is kept for it, it holds on every replica that has the token, and it ends with the token. Only
//! those that were logged out are remembered, [`MAX_ENDED`] at most, for as long as this process lives.
//!
//! A browser sends its cookies with whatever a page asks for. So a change needs the session's CSRF token too, which only pages of
//! the console's own hold: an HMAC over the session's name.

use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::COOKIE;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use uuid::Uuid;

use super::guard::{By, Caller, Role};
use crate::clock::now_ms;

/// Name of the cookie.
pub const COOKIE_NAME: &str = "finhook_session";
/// How long a session holds.
const LIFE: Duration = Duration::from_secs(12 * 60 * 60);
/// Sessions that were logged out and would still hold, at most; the oldest is forgotten first.
const MAX_ENDED: usize = 1024;

type Key = [u8; 32];

/// Makes sessions, and knows them again. By default there are none.
#[derive(Default)]
pub struct Sessions {
    /// `None`: no token is configured, and there is nothing to log in with.
    operator: Option<Key>,
    reader: Option<Key>,
    /// For CSRF tokens where there is no session.
    process: Key,
    /// Whether the cookie is for TLS only.
    secure: bool,
    ended: Mutex<VecDeque<Box<str>>>,
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sessions").finish_non_exhaustive()
    }
}

impl Sessions {
    /// Sessions of those who have one of these tokens. `secure`: the listener talks TLS.
    #[must_use]
    pub fn new(operator: Option<&SecretString>, reader: Option<&SecretString>, secure: bool) -> Self {
        let key = |token: &SecretString| mac(token.expose_secret().as_bytes(), "finhook/console/1");
        let mut process = [0; 32];
        for half in process.chunks_mut(16) {
            half.copy_from_slice(Uuid::new_v4().as_bytes());
        }
        Self { operator: operator.map(key), reader: reader.map(key), process, secure, ended: Mutex::default() }
    }

    /// A new session: the value of `Set-Cookie`, and who its holder is. `None` where the role has no token.
    #[must_use]
    pub fn begin(&self, role: Role) -> Option<(String, Caller)> {
        let key = self.key(role)?;
        let ends = now_ms() / 1000 + i64::try_from(LIFE.as_secs()).unwrap_or(i64::MAX);
        let name = Uuid::new_v4().simple().to_string();
        let claim = format!("{}.{ends}.{name}", letter(role));
        let value = format!("{claim}.{}", hex::encode(mac(key, &claim)));
        Some((self.set_cookie(&value, LIFE), Caller { role, by: By::Session(shown(&name)) }))
    }

    /// Ends the session that came with a request, if one did: the value of `Set-Cookie`.
    pub fn end(&self, headers: &HeaderMap) -> String {
        if let Some((_, name)) = self.known(headers) {
            let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
            if ended.len() >= MAX_ENDED {
                ended.pop_front();
            }
            ended.push_back(name.into());
        }
        self.set_cookie("", Duration::ZERO)
    }

    /// Whose session came with a request.
    #[must_use]
    pub fn caller(&self, headers: &HeaderMap) -> Option<Caller> {
        let (role, name) = self.known(headers)?;
        Some(Caller { role, by: By::Session(shown(name)) })
    }

    /// What a change must be accompanied by: made from the session that came with the request, or else from this process.
    #[must_use]
    pub fn csrf(&self, headers: &HeaderMap) -> String {
        let session = self.known(headers).and_then(|(role, name)| Some((self.key(role)?, name)));
        let (key, name) = session.unwrap_or((&self.process, ""));
        hex::encode(mac(key, &format!("csrf.{name}")))
    }

    /// Whether a change may be made.
    #[must_use]
    pub fn is_csrf(&self, headers: &HeaderMap, given: &str) -> bool {
        self.csrf(headers).as_bytes().ct_eq(given.as_bytes()).into()
    }

    fn known<'h>(&self, headers: &'h HeaderMap) -> Option<(Role, &'h str)> {
        let cookie = cookie(headers)?;
        let (claim, given) = cookie.rsplit_once('.')?;
        let mut parts = claim.split('.');
        let role = match parts.next()? {
            "o" => Role::Operator,
            "r" => Role::Reader,
            _ => return None,
        };
        let (ends, name) = (parts.next()?.parse::<i64>().ok()?, parts.next()?);
        let right = hex::encode(mac(self.key(role)?, claim));
        let is_right: bool = right.as_bytes().ct_eq(given.as_bytes()).into();
        let holds = is_right && parts.next().is_none() && now_ms() / 1000 < ends;
        let ended = || self.ended.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|ended| **ended == *name);
        (holds && !ended()).then_some((role, name))
    }

    fn key(&self, role: Role) -> Option<&Key> {
        match role {
            Role::Operator => self.operator.as_ref(),
            Role::Reader => self.reader.as_ref(),
        }
    }

    fn set_cookie(&self, value: &str, life: Duration) -> String {
        let mut cookie =
            format!("{COOKIE_NAME}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={}", life.as_secs());
        if self.secure {
            let _ = write!(cookie, "; Secure");
        }
        cookie
    }
}

fn letter(role: Role) -> char {
    match role {
        Role::Operator => 'o',
        Role::Reader => 'r',
    }
}

/// A session's name in the log: enough to tell it from others.
fn shown(name: &str) -> Arc<str> {
    name.get(..8).unwrap_or(name).into()
}

/// The session's cookie; none when there are two, as a page of a neighbouring host can set one beside ours.
fn cookie(headers: &HeaderMap) -> Option<&str> {
    let all = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = all.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut ours = pairs.filter(|(name, _)| *name == COOKIE_NAME).map(|(_, value)| value);
    ours.next().filter(|_| ours.next().is_none())
}

fn mac(key: &[u8], text: &str) -> Key {
    // HMAC takes keys of every length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return Key::default() };
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn sessions(operator: &str) -> Sessions {
        Sessions::new(Some(&operator.into()), Some(&"reader".into()), false)
    }

    fn sent(set_cookie: &str) -> HeaderMap {
        let pair = set_cookie.split(';').next().unwrap();
        HeaderMap::from_iter([(COOKIE, HeaderValue::from_str(&format!("other=1; {pair}")).unwrap())])
    }

    #[test]
    fn a_session_is_known_again_wherever_the_token_is_the_same_and_nowhere_else() {
        let (here, there) = (sessions("token"), sessions("token"));
        let (cookie, caller) = here.begin(Role::Operator).unwrap();
        assert!(cookie.contains("HttpOnly; SameSite=Strict; Max-Age=43200") && !cookie.contains("Secure"), "{cookie}");
        assert_eq!(there.caller(&sent(&cookie)), Some(caller));
        assert_eq!(there.csrf(&sent(&cookie)), here.csrf(&sent(&cookie)), "on another replica, too");
        assert_eq!(sessions("another").caller(&sent(&cookie)), None, "it ends with the token");
        assert_eq!(Sessions::new(None, None, false).caller(&sent(&cookie)), None);
        let (other, _) = here.begin(Role::Operator).unwrap();
        assert_ne!(here.csrf(&sent(&other)), here.csrf(&sent(&cookie)));
        assert!(here.is_csrf(&sent(&cookie), &here.csrf(&sent(&cookie))));
        assert!(!here.is_csrf(&sent(&cookie), ""));
    }

    #[test]
    fn what_was_changed_forged_doubled_or_logged_out_is_no_session() {
        let sessions = sessions("token");
        let (cookie, _) = sessions.begin(Role::Reader).unwrap();
        let as_operator = cookie.replace("=r.", "=o.");
        let parts: Vec<&str> = cookie.split('.').collect();
        let later = cookie.replace(parts[1], "99999999999");
        for forged in [&*as_operator, &later, "finhook_session=", "finhook_session=o.9.9.9", "finhook_session=....."] {
            assert_eq!(sessions.caller(&sent(forged)), None, "{forged}");
        }
        let mut twice = sent(&cookie);
        twice.append(COOKIE, twice[COOKIE].clone());
        assert_eq!(sessions.caller(&twice), None);
        assert!(sessions.caller(&sent(&cookie)).is_some_and(|caller| caller.is_reader()));
        assert!(sessions.end(&sent(&cookie)).contains("Max-Age=0"));
        assert_eq!(sessions.caller(&sent(&cookie)), None);
    }

    #[test]
    fn over_tls_the_cookie_is_for_tls_only() {
        let sessions = Sessions::new(Some(&"token".into()), None, true);
        assert!(sessions.begin(Role::Operator).unwrap().0.ends_with("; Secure"));
        assert!(sessions.begin(Role::Reader).is_none(), "it has no token");
    }
}
