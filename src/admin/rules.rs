//! What the API's description says beyond the shapes: the rules that the handlers enforce, from the same constants.

use std::borrow::Cow;

use serde_json::{Value, json};
use utoipa::openapi::{Object, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// Ids in one request.
pub(super) const MAX_IDS: usize = 1000;
/// Events in one page.
pub(super) const MAX_LIMIT: usize = 1000;
/// The same when a request doesn't say.
pub(super) const DEFAULT_LIMIT: usize = 100;
/// What chooses events by itself: the filters of [`Selection`](super::Selection) but `sink`, which says where to send in a replay.
pub(super) const FILTERS: [&str; 7] = ["conversation", "user", "event", "status", "state", "since", "until"];

/// Schemas that [`schemas`] writes: the library's derive only refers to them by name.
macro_rules! named {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        pub(super) struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                RefOr::T(Schema::Object(Object::new()))
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                stringify!($name).into()
            }
        }
    )*};
}

named! {
    /// What [`clock::parse_or_ago`](crate::clock::parse_or_ago) reads.
    Moment,
    /// [`ListQuery::limit`](super::ListQuery::limit).
    PageLimit,
    /// `next` of a page.
    Cursor,
    /// `next` of a page of conversations.
    ConversationCursor,
    /// `next` of a page of a transcript.
    Seq,
    /// [`Selection::ids`](super::Selection::ids).
    Ids,
    /// [`Selection`](super::Selection) as a replay takes it.
    ReplaySelection,
    /// [`Selection`](super::Selection) as a purge takes it.
    PurgeSelection,
}

/// Completes a description.
pub(super) fn apply(description: &mut Value) {
    for (name, schema) in schemas() {
        description["components"]["schemas"][name] = schema;
    }
    let Some(paths) = description["paths"].as_object_mut() else { return };
    for (path, operations) in paths {
        let operations = operations.as_object_mut().into_iter().flatten();
        for (_, operation) in operations.filter(|_| path.starts_with("/api/v1/")) {
            let mut answers = vec![
                ("401", "The token is missing or wrong"),
                ("403", "A foreign Origin, Sec-Fetch-Site or Host; a change with the token for looking"),
                ("503", "The journal fails"),
            ];
            if operation["requestBody"].is_object() {
                answers.push(("408", "The body did not come in time"));
                answers.push(("413", "The body is too large"));
                answers.push(("415", "The body is not said to be JSON"));
            }
            for (status, description) in answers {
                let known = &mut operation["responses"][status];
                if known.is_null() {
                    let problem = json!({ "schema": { "$ref": "#/components/schemas/Problem" } });
                    *known = json!({ "description": description, "content": { "application/problem+json": problem } });
                }
            }
        }
    }
}

fn schemas() -> [(&'static str, Value); 8] {
    let id = json!({ "type": "string", "format": "uuid" });
    let sendable = json!({ "properties": { "state": { "not": { "enum": ["quarantined", "purged"] } } } });
    let of_purge: Vec<&str> = FILTERS.into_iter().chain(["sink"]).collect();
    [
        (
            "Moment",
            json!({
                "description": "RFC 3339, or how long ago. Of the latter only the plainest form is described: \"1h 30m\" is read as well.",
                "anyOf": [
                    { "type": "string", "format": "date-time", "examples": ["2026-01-31T12:00:00Z"] },
                    { "type": "string", "pattern": "^(0|[0-9]{1,3}[smhd])$", "examples": ["2h"] },
                ],
            }),
        ),
        ("PageLimit", json!({ "type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT })),
        (
            "Cursor",
            json!({
                "description": "A number; with `state=purged` an id.",
                "anyOf": [{ "type": "string", "pattern": "^[0-9]{1,19}$" }, id],
            }),
        ),
        ("ConversationCursor", json!({ "type": "string", "pattern": "^[0-9]{1,18}\\.[0-9]{1,18}$" })),
        ("Seq", json!({ "type": "string", "pattern": "^[0-9]{1,18}$" })),
        ("Ids", json!({ "type": "array", "items": id, "minItems": 1, "maxItems": MAX_IDS })),
        ("ReplaySelection", selection(&FILTERS, &[json!({ "required": ["sink"] }), sendable])),
        ("PurgeSelection", selection(&of_purge, &[])),
    ]
}

/// Ids, or at least one of `filters`, but not both; `limit` goes with filters.
fn selection(filters: &[&str], rules: &[Value]) -> Value {
    let given = |names: &[&str]| -> Value { names.iter().map(|name| json!({ "required": [name] })).collect() };
    let not_with_ids: Vec<&str> = filters.iter().copied().chain(["limit"]).collect();
    let ids = json!({ "required": ["ids"], "not": { "anyOf": given(&not_with_ids) } });
    let some = json!({ "not": { "required": ["ids"] }, "anyOf": given(filters) });
    let all = [json!({ "$ref": "#/components/schemas/Selection" }), json!({ "oneOf": [ids, some] })];
    json!({ "allOf": all.into_iter().chain(rules.iter().cloned()).collect::<Value>() })
}
