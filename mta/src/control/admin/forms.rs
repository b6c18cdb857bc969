//! Bodies of requests: read whole within their bound, and forms as far as a login and its word need them.

use axum::{
    body::{Body, Bytes, to_bytes},
    http::{HeaderMap, header},
};
use http_body_util::LengthLimitError;

use crate::control::{api::Refusal, http::BODY_BYTES_MAX};

/// A body whose head this is.
pub(super) async fn read(head: &HeaderMap, body: Body) -> Result<Bytes, Refusal> {
    let told = head.get(header::CONTENT_LENGTH).and_then(|told| told.to_str().ok()?.parse::<u64>().ok());
    // What says that it is too long is not waited for.
    if told.is_some_and(|told| told > BODY_BYTES_MAX as u64) {
        return Err(Refusal::TooLarge);
    }
    to_bytes(body, BODY_BYTES_MAX).await.map_err(|error| {
        let error = error.into_inner();
        if error.is::<LengthLimitError>() { Refusal::TooLarge } else { Refusal::Wrong(format!("the body broke off: {error}")) }
    })
}

/// Whether the body is a form of a page.
pub(super) fn is_form(head: &HeaderMap) -> bool {
    is(head, "application/x-www-form-urlencoded")
}

/// Whether the body is JSON.
pub(super) fn is_json(head: &HeaderMap) -> bool {
    is(head, "application/json")
}

fn is(head: &HeaderMap, wanted: &str) -> bool {
    let kind = head.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.split(';').next().unwrap_or("").trim().eq_ignore_ascii_case(wanted))
}

/// The first field of this name in a form's body.
pub(super) fn field(body: &[u8], name: &str) -> Option<String> {
    form_urlencoded::parse(body).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

/// Whether a path may be sent to after a login: one of ours, and nothing that a browser takes for another host.
pub(super) fn is_ours(path: &str) -> bool {
    let rest = path.strip_prefix('/');
    let plain = path.bytes().all(|octet| octet.is_ascii_graphic() && octet != b'\\');
    plain && rest.is_some_and(|rest| !rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_leads_to_our_own_pages_only() {
        for ours in ["/", "/queue?site=a.example", "/warmup/ip-a/google#today"] {
            assert!(is_ours(ours), "{ours}");
        }
        for other in ["", "queue", "//a.example", "/\\a.example", "https://a.example", "/a\r\nSet-Cookie: a=b", "/ä", "\t/"] {
            assert!(!is_ours(other), "{other}");
        }
    }

    #[test]
    fn fields_of_a_form_are_read_as_a_browser_writes_them() {
        assert_eq!(field(b"a=1&csrf=x%2By+z&csrf=2", "csrf").as_deref(), Some("x+y z"));
        assert_eq!(field(b"a=1", "csrf"), None);
        assert_eq!(field(b"\xff%zz", "csrf"), None);
    }
}
