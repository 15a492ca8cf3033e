//! A body, indented for people: its tokens as they stand, so that numbers, escapes and the order of members are those that were sent.

/// Deeper than any sensible body; what is further in is not indented further.
const MAX_INDENT: usize = 32;

/// The same text with line breaks and spaces between its tokens; of what is no JSON, something as near to it.
pub(super) fn indented(json: &str) -> String {
    let mut text = String::with_capacity(json.len() + json.len() / 4);
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    let mut chars = json.chars().peekable();
    while let Some(c) = chars.next() {
        if in_string {
            text.push(c);
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
            continue;
        }
        match c {
            '"' => {
                in_string = true;
                text.push(c);
            }
            '{' | '[' => {
                text.push(c);
                while chars.next_if(|next| next.is_ascii_whitespace()).is_some() {}
                match chars.next_if(|next| matches!(next, '}' | ']')) {
                    Some(close) => text.push(close),
                    None => {
                        depth += 1;
                        line(&mut text, depth);
                    }
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut text, depth);
                text.push(c);
            }
            ',' => {
                text.push(c);
                line(&mut text, depth);
            }
            ':' => text.push_str(": "),
            c if c.is_ascii_whitespace() => {}
            c => text.push(c),
        }
    }
    text
}

fn line(text: &mut String, depth: usize) {
    text.push('\n');
    text.extend(std::iter::repeat_n("  ", depth.min(MAX_INDENT)));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::indented;

    #[test]
    fn tokens_stay_as_they_are() {
        let json = r#"{"id":12345678901234567890.10e+05,"s":"a\"{b}\\","e":{},"l":[ ],"x":[1,-0.0],"id":1}"#;
        let shown = "{\n  \"id\": 12345678901234567890.10e+05,\n  \"s\": \"a\\\"{b}\\\\\",\n  \"e\": {},\n  \"l\": [],\n  \
                     \"x\": [\n    1,\n    -0.0\n  ],\n  \"id\": 1\n}";
        assert_eq!(indented(json), shown);
        assert_eq!(indented(&indented(json)), shown, "once more changes nothing");
    }

    proptest! {
        #[test]
        fn any_text_is_shown_with_all_that_is_no_space(text in "[\\[\\]{}:,\"\\\\ \n0-9a-zé]{0,60}") {
            let solid = |text: &str| text.chars().filter(|c| !c.is_ascii_whitespace()).collect::<String>();
            prop_assert_eq!(solid(&indented(&text)), solid(&text));
        }
    }
}
