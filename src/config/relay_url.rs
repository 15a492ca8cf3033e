//! A relay's URL, which may hold credentials.

use std::fmt;

use url::{Position, Url};

/// A URL whose user info, query values and fragment are redacted in `Debug` and `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct RelayUrl(pub Url);

impl fmt::Display for RelayUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = &self.0;
        write!(f, "{}://", url.scheme())?;
        if !url.username().is_empty() || url.password().is_some() {
            f.write_str("<redacted>@")?;
        }
        f.write_str(&url[Position::BeforeHost..Position::AfterPath])?;
        if let Some(query) = url.query() {
            for (n, pair) in query.split('&').enumerate() {
                f.write_str(if n == 0 { "?" } else { "&" })?;
                // A part without a name may be a secret as a whole.
                match pair.split_once('=') {
                    Some((name, _)) => write!(f, "{name}=<redacted>")?,
                    None => f.write_str("<redacted>")?,
                }
            }
        }
        if url.fragment().is_some() {
            f.write_str("#<redacted>")?;
        }
        Ok(())
    }
}

impl fmt::Debug for RelayUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn user_info_query_values_and_fragment_are_redacted_and_the_rest_is_shown() {
        for (url, shown) in [
            ("http://backend:3000/fin", "http://backend:3000/fin"),
            ("https://u:hunter2@h/p", "https://<redacted>@h/p"),
            ("https://hunter2@h/", "https://<redacted>@h/"),
            ("https://h/p?token=hunter2&b=hunter2#hunter2", "https://h/p?token=<redacted>&b=<redacted>#<redacted>"),
            ("https://h/?hunter2", "https://h/?<redacted>"),
        ] {
            let url = RelayUrl(Url::parse(url).unwrap());
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), shown);
        }
    }
}
