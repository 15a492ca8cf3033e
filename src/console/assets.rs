//! The console's own files, which the binary holds.

use std::sync::LazyLock;

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, X_CONTENT_TYPE_OPTIONS};
use axum::routing::get;
use xxhash_rust::xxh3::xxh3_64;

const CSS: &str = include_str!("console.css");
const JS: &str = include_str!("console.js");
const ICON: &str = include_str!("icon.svg");

/// With what is in them in their address, so that browsers keep them until they change.
static CSS_PATH: LazyLock<String> = LazyLock::new(|| format!("/assets/console.css?{:x}", xxh3_64(CSS.as_bytes())));
static JS_PATH: LazyLock<String> = LazyLock::new(|| format!("/assets/console.js?{:x}", xxh3_64(JS.as_bytes())));

pub(super) fn css() -> &'static str {
    &CSS_PATH
}

pub(super) fn js() -> &'static str {
    &JS_PATH
}

/// They hold nothing of anybody's: no session is asked for.
pub(super) fn router() -> Router {
    let file = |kind: &'static str, text: &'static str| {
        let headers: [(HeaderName, &str); 3] =
            [(CONTENT_TYPE, kind), (CACHE_CONTROL, "max-age=31536000, immutable"), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
        get(async move || (headers, text))
    };
    Router::new()
        .route("/assets/console.css", file("text/css; charset=utf-8", CSS))
        .route("/assets/console.js", file("text/javascript; charset=utf-8", JS))
        .route("/assets/icon.svg", file("image/svg+xml", ICON))
}
