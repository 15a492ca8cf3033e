//! Somebody else's HTML, for people: what it says, with emphasis, links and lists, in elements of our own.
//!
//! The library that reads the HTML for the command line reads it here, too, and gives lines of text with what each part of them
//! is. So no element, attribute or style of the stranger's is ever written: there is nothing that a cleaner could have missed.
//! Links are written only where they lead to the web or to a mail address. Images are not loaded; their texts are shown.

use html2text::config;
use html2text::render::RichAnnotation;
use maud::{Markup, html};

use crate::conversations::transcript::is_deep;

/// Wider than any line: browsers break lines.
const WIDTH: usize = 10_000;

/// What a message says.
pub(super) fn show(source: &str) -> Markup {
    let read = || config::rich().allow_width_overflow().lines_from_read(source.as_bytes(), WIDTH).ok();
    let Some(lines) = Some(source).filter(|source| !is_deep(source)).and_then(|_| read()) else {
        return html! { span.line { (source) } };
    };
    html! {
        @for line in &lines { span.line { @for part in line.tagged_strings() { (part_of(&part.s, &part.tag)) } } }
    }
}

fn part_of(text: &str, annotations: &[RichAnnotation]) -> Markup {
    annotations.iter().rev().fold(html! { (text) }, |inner, annotation| match annotation {
        RichAnnotation::Link(to) if leads_out(to) => {
            html! { a href=(to) target="_blank" rel="noopener noreferrer nofollow" { (inner) } }
        }
        RichAnnotation::Emphasis => html! { em { (inner) } },
        RichAnnotation::Strong => html! { strong { (inner) } },
        RichAnnotation::Strikeout => html! { s { (inner) } },
        RichAnnotation::Code | RichAnnotation::Preformat(_) => html! { code { (inner) } },
        RichAnnotation::Image(_) => html! { span.image { "image: " (inner) } },
        _ => inner,
    })
}

/// Whether it is an address of the web or of mail: no script, no data, no path of this listener.
fn leads_out(to: &str) -> bool {
    url::Url::parse(to).is_ok_and(|url| matches!(url.scheme(), "http" | "https" | "mailto"))
}

#[cfg(test)]
mod tests {
    use super::show;

    fn shown(source: &str) -> String {
        show(source).into_string()
    }

    #[test]
    fn what_fin_says_keeps_its_emphasis_links_and_lists() {
        let shown = shown(
            "<p>Open <b>Settings</b> &amp; <i>save</i>.</p><ol><li>One</li><li><code>Two</code></li></ol>\
             <p><a href=\"https://help.example/a?b=1&amp;c\">Help</a></p>",
        );
        for part in [
            "Open <strong>Settings</strong> &amp; <em>save</em>.",
            "1. One",
            "<code>Two</code>",
            "<a href=\"https://help.example/a?b=1&amp;c\" target=\"_blank\" rel=\"noopener noreferrer nofollow\">Help</a>",
        ] {
            assert!(shown.contains(part), "{part} in {shown}");
        }
    }

    #[test]
    fn no_markup_of_a_strangers_is_written_whatever_it_is() {
        for evil in [
            "<script>alert(1)</script>",
            "<img src=x onerror=alert(1)>",
            "<svg><script>alert(1)</script></svg>",
            "<svg onload=alert(1)>",
            "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
            "<a href='javascript:alert(1)'>a</a>",
            "<a href='JaVaScRiPt:alert(1)'>a</a>",
            "<a href='data:text/html,<script>alert(1)</script>'>a</a>",
            "<a href='/log-out'>a</a>",
            "<p style='position:fixed;inset:0' onclick=alert(1) id=main>x</p>",
            "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)>",
            "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
            "<form action=/log-out><button>x</button></form>",
            "<pre><script>alert(1)</script></pre>",
            "&lt;script&gt;alert(1)&lt;/script&gt;",
            "<style>*{display:none}</style>",
            "<meta http-equiv=refresh content='0;url=https://evil.example'>",
            "<base href=https://evil.example>",
            "<b><i>deep</b></i><p><a href='https://a.example\" onmouseover=\"alert(1)'>a</a>",
        ] {
            let shown = shown(evil);
            let tags = shown.match_indices('<').map(|(at, _)| &shown[at..]);
            for tag in tags {
                let ours = [
                    "<span class=\"line\">",
                    "<span class=\"image\">",
                    "</span>",
                    "<em>",
                    "</em>",
                    "<strong>",
                    "</strong>",
                ];
                let ours = ours.iter().chain(&["<code>", "</code>", "</a>", "<a href=\"https://a.example"]);
                assert!(ours.into_iter().any(|ours| tag.starts_with(ours)), "{evil}: {shown}");
            }
            assert!(!shown.contains(" onmouseover=") || shown.contains("&quot;"), "{shown}");
        }
    }

    #[test]
    fn deep_html_is_shown_as_it_is_written() {
        let shown = shown(&("<b>".repeat(100_000) + "end"));
        assert!(shown.contains("&lt;b&gt;end</span>") && !shown.contains("<b>"));
    }
}
