//! Variables that look like finhook's and aren't: a mistyped one configures nothing, and nobody would know.

use std::ffi::OsString;

use super::layer::PREFIX;

/// Those that don't hold a key of the configuration.
const OTHERS: [&str; 2] = ["FINHOOK_CONFIG", "FINHOOK_ENV"];
/// A name that differs by more letters than these isn't meant.
const FARTHEST: usize = 3;

/// A warning for each variable `FINHOOK…` that nothing reads. `keys`: the full names of the keys that there are.
pub(super) fn unknown<'k>(vars: &[(OsString, OsString)], keys: impl Iterator<Item = &'k String>) -> Vec<String> {
    let variable = |key: &String| format!("{PREFIX}{}", key.to_uppercase().replace('.', "__"));
    let mut known: Vec<String> = keys.map(variable).collect();
    known.extend(OTHERS.map(str::to_owned));
    let mut warnings: Vec<String> = vars
        .iter()
        .filter_map(|(name, value)| Some((name.to_str()?, value.to_string_lossy())))
        .filter(|(name, value)| {
            let ours = name.get(..7).is_some_and(|begin| begin.eq_ignore_ascii_case("FINHOOK"));
            // What begins with the prefix is read, and refused when it names no key.
            ours && !name.starts_with(PREFIX) && !OTHERS.contains(name) && !is_service_link(name, value)
        })
        .map(|(name, _)| match nearest(name, &known) {
            Some(meant) => format!("variable {name} is none of finhook's and changes nothing; did you mean {meant}?"),
            None => format!(
                "variable {name} is none of finhook's and changes nothing; keys are set by {PREFIX}SECTION__KEY, the \
                 others are {}",
                OTHERS.join(" and ")
            ),
        })
        .collect();
    warnings.sort();
    warnings
}

/// Whether Kubernetes or Docker set it, as they do for each service near by whose name begins with finhook.
fn is_service_link(name: &str, value: &str) -> bool {
    let port = name.split("_PORT_").nth(1).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    let address = name.ends_with("_PORT") && value.contains("://");
    name.contains("_SERVICE_HOST") || name.contains("_SERVICE_PORT") || port || address
}

/// The known name with the fewest other letters. How many underscores stand between two words is what people mistake first,
/// so it doesn't count.
fn nearest<'n>(name: &str, known: &'n [String]) -> Option<&'n String> {
    let letters =
        |name: &str| name.to_uppercase().split('_').filter(|word| !word.is_empty()).collect::<Vec<_>>().join("_");
    let name = letters(name);
    let distances = known.iter().map(|known| (strsim::levenshtein(&name, &letters(known)), known));
    distances
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, _)| *distance <= FARTHEST)
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warned(name: &str, value: &str) -> Option<String> {
        let keys = ["server.bind".to_owned(), "server.body_timeout".to_owned(), "endpoints.fin.path".to_owned()];
        let mut warnings = unknown(&[(name.into(), value.into())], keys.iter());
        assert!(warnings.len() < 2);
        warnings.pop()
    }

    #[test]
    fn a_mistyped_variable_is_warned_of_with_the_nearest_known_one() {
        for (name, meant) in [
            ("FINHOOK_SERVER__BIND", "FINHOOK__SERVER__BIND"),
            ("FINHOOK_SERVER_BIND", "FINHOOK__SERVER__BIND"),
            ("finhook__server__bind", "FINHOOK__SERVER__BIND"),
            ("FINHOOK___SERVER__BIND", "FINHOOK__SERVER__BIND"),
            ("FINHOOK_SERVER__BODY_TIMEUOT", "FINHOOK__SERVER__BODY_TIMEOUT"),
            ("FINHOOK_CONFG", "FINHOOK_CONFIG"),
            ("FINHOOKENV", "FINHOOK_ENV"),
        ] {
            // Three underscores begin with the prefix: that one is refused as a key.
            let refused = name.starts_with(PREFIX);
            let found = warned(name, "x");
            assert_eq!(found.is_none(), refused, "{name}");
            assert!(found.is_none_or(|warning| warning.ends_with(&format!("did you mean {meant}?"))), "{name}");
        }
        assert!(warned("FINHOOK_SOMETHING_ELSE", "").is_some_and(|warning| !warning.contains("did you mean")));
    }

    #[test]
    fn known_variables_and_those_of_others_are_not_warned_of() {
        for name in ["FINHOOK_CONFIG", "FINHOOK_ENV", "FINHOOK__SERVER__BIND", "PATH", "FIN", "ÄÖÜFINHOOK"] {
            assert_eq!(warned(name, "x"), None);
        }
        for (name, value) in [
            ("FINHOOK_SERVICE_HOST", "10.0.0.1"),
            ("FINHOOK_SERVICE_PORT_HTTP", "8080"),
            ("FINHOOK_PORT", "tcp://10.0.0.1:8080"),
            ("FINHOOK_PORT_8080_TCP_ADDR", "10.0.0.1"),
            ("FINHOOK_ADMIN_SERVICE_PORT", "9090"),
        ] {
            assert_eq!(warned(name, value), None, "{name}");
        }
        assert!(warned("FINHOOK_SERVER_PORT", "8080").is_some());
    }
}
