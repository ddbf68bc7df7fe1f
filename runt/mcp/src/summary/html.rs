//! HTML turned into text.
//!
//! Promises: an answer, whatever the HTML is; what is not turned into text is said.

use std::panic::catch_unwind;

/// Columns of a table.
const WIDTH: usize = 100;

/// Longest HTML that is turned into text, in characters: a table of a thousand cells. The converter takes a time that grows
/// with the square of how deep elements are in each other, a second or two for so many at the worst. What is longer is
/// mostly the script of a plot, of which nothing would be left.
const MOST: usize = 50_000;

/// The words in it; the HTML itself if there is no making sense of it.
pub(super) fn to_text(html: String) -> String {
    let Some((cut, _)) = html.char_indices().nth(MOST) else {
        return convert(&html).unwrap_or(html);
    };
    let (head, rest) = html.split_at(cut);
    let text = convert(head).unwrap_or_else(|| head.to_owned());
    format!("{text}\n[{} more characters of HTML are not turned into text]\n", rest.chars().count())
}

/// Its words; none if that fails.
fn convert(html: &str) -> Option<String> {
    // The converter is not ours and has places where it panics; nobody would answer the call then.
    catch_unwind(|| html2text::config::plain().string_from_read(html.as_bytes(), WIDTH)).ok()?.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_html_is_cut_and_says_so() {
        let text = to_text(format!("<p>first</p>{}", "x".repeat(MOST)));
        assert!(text.starts_with("first\n"), "{text:.100}");
        assert!(text.ends_with("\n[12 more characters of HTML are not turned into text]\n"));
        assert_eq!(to_text("ä".repeat(MOST)).matches('ä').count(), MOST);
    }

    #[test]
    fn html_that_makes_no_sense_has_an_answer() {
        for html in
            ["<", "<table><tr><td colspan=0><td rowspan=99999999></table>", "</p><![CDATA[", "&#x110000;"]
        {
            to_text(html.to_owned());
        }
        // On the stack of a worker of the server.
        std::thread::Builder::new()
            .stack_size(2 * 1024 * 1024)
            .spawn(|| {
                for tag in ["<div>", "<b>", "<ul><li>", "<table><tr><td>", "<blockquote>"] {
                    to_text(tag.repeat(MOST / tag.len()));
                }
            })
            .unwrap()
            .join()
            .unwrap();
    }
}
