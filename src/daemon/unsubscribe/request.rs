//! What is asked at a link that unsubscribes, and what is shown there. Pure.
//!
//! A mail program posts `List-Unsubscribe=One-Click` (RFC 8058 §3.1), as a form of either kind; the page's button posts the same. Whoever
//! only looks (GET, as link checkers do) changes nothing. Nothing of a request ever stands in an answer.

use axum::http::{Method, StatusCode, Uri};

use crate::policy::token::TOKEN_CHARS;

/// Octets of a request's body. RFC 8058 needs 26, in a form of several parts about 200.
pub(super) const BODY_BYTES_MAX: usize = 4 << 10;
/// Name and value of the field that has to be there.
const FIELD: (&[u8], &[u8]) = (b"list-unsubscribe", b"one-click");

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// GET or HEAD: what the link is.
    Look,
    /// POST.
    Unsubscribe,
}

/// By the method; `None`: 405.
pub(super) fn asked(method: &Method) -> Option<Asked> {
    match *method {
        Method::GET | Method::HEAD => Some(Asked::Look),
        Method::POST => Some(Asked::Unsubscribe),
        _ => None,
    }
}

/// What could be the token of a link: the last word of its length in path and query, since programs add to links.
pub(super) fn token(uri: &Uri) -> Option<&str> {
    let text = uri.path_and_query()?.as_str();
    text.rsplit(|c: char| !c.is_ascii_alphanumeric()).find(|word| word.len() == TOKEN_CHARS)
}

/// Whether a body asks for it, as a form of either kind.
pub(super) fn is_one_click(body: &[u8]) -> bool {
    let body = body.to_ascii_lowercase();
    let find = |from: &[u8], text: &[u8]| memchr::memmem::find(from, text).map(|at| at + text.len());
    let name = find(&body, FIELD.0);
    name.and_then(|end| find(body.get(end..)?, FIELD.1)).is_some()
}

/// A page for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    /// It asks whether they mean it.
    Confirm,
    /// It is done.
    Done,
    /// Nobody knows the link.
    Unknown,
    /// It was not asked as it has to be.
    Bad,
    /// By another method.
    NotAllowed,
    /// It cannot be done now.
    Later,
}

impl Page {
    /// The status of HTTP.
    pub(super) const fn status(self) -> StatusCode {
        match self {
            Page::Confirm | Page::Done => StatusCode::OK,
            Page::Bad => StatusCode::BAD_REQUEST,
            Page::Unknown => StatusCode::NOT_FOUND,
            Page::NotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Page::Later => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// `outcome` of the metric.
    pub(super) const fn outcome(self) -> &'static str {
        match self {
            Page::Confirm => "page",
            Page::Done => "done",
            Page::Unknown => "unknown",
            Page::Bad | Page::NotAllowed => "bad",
            Page::Later => "error",
        }
    }

    /// The document: all of it is ours.
    pub(super) fn html(self) -> String {
        let (title, body) = match self {
            Page::Confirm => (
                "Unsubscribe",
                "<p>Do you want to receive no more messages of this kind?</p>\
                 <form method=\"post\"><input type=\"hidden\" name=\"List-Unsubscribe\" value=\"One-Click\">\
                 <button>Unsubscribe</button></form>",
            ),
            Page::Done => (
                "Unsubscribed",
                "<p>You will receive no more messages of this kind. One that is on its way may still arrive.</p>",
            ),
            Page::Unknown => (
                "This link does not work",
                "<p>It is not complete, or too old. Use the link of a newer message, or answer the message.</p>",
            ),
            Page::Bad | Page::NotAllowed => {
                ("This request is not complete", "<p>Open the link once more, and press the button there.</p>")
            }
            Page::Later => {
                ("Please try again", "<p>Nothing was changed. Please open the link again in a few minutes.</p>")
            }
        };
        format!(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title>\
             <style>body{{font:1.1rem/1.5 sans-serif;max-width:32rem;margin:4rem auto;padding:0 1rem}}\
             button{{font:inherit;padding:.5rem 1.5rem}}</style></head>\
             <body><h1>{title}</h1>{body}</body></html>\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "abcdefghijklmnopqrstuvwxyz234567abcdefghijklmnopqrstuvwx";

    #[test]
    fn a_token_is_a_word_of_a_link() {
        let of = |text: String| token(&text.parse().unwrap()).map(str::to_owned);
        for before in ["/", "/u/", "/unsubscribe?t=", "/u?x=1&token=", "/?", "http://other.test/u/"] {
            for behind in ["", "/", "?utm_source=mail", "&x=1"] {
                assert_eq!(of(format!("{before}{TOKEN}{behind}")).as_deref(), Some(TOKEN), "{before} {behind}");
            }
        }
        let other = TOKEN.to_uppercase();
        assert_eq!(of(format!("/{other}/{TOKEN}")).as_deref(), Some(TOKEN));
        for text in [format!("/x{TOKEN}"), format!("/{}", &TOKEN[1..]), "/".to_owned(), "*".to_owned()] {
            assert_eq!(of(text.clone()), None, "{text}");
        }
    }

    #[test]
    fn both_kinds_of_forms_ask_for_it_and_nothing_else_does() {
        let parts = "--b\r\nContent-Disposition: form-data; name=\"List-Unsubscribe\"\r\n\r\nOne-Click\r\n--b--\r\n";
        for body in ["List-Unsubscribe=One-Click", "a=b&list-unsubscribe=one-click", parts] {
            assert!(is_one_click(body.as_bytes()), "{body}");
        }
        for body in ["", "One-Click=List-Unsubscribe", "List-Unsubscribe=", "unsubscribe"] {
            assert!(!is_one_click(body.as_bytes()), "{body}");
        }
    }

    #[test]
    fn only_the_page_that_asks_has_a_form_and_it_posts_what_mail_programs_post() {
        for page in [Page::Confirm, Page::Done, Page::Unknown, Page::Bad, Page::NotAllowed, Page::Later] {
            assert_eq!(page.html().contains("<form method=\"post\">"), page == Page::Confirm);
        }
        assert!(Page::Confirm.html().contains("name=\"List-Unsubscribe\" value=\"One-Click\""));
    }
}
