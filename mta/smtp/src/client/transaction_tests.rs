//! Dots and line ends.

use super::*;

fn stuffed(octets: &[u8]) -> Vec<u8> {
    let mut body = Body::new(Bytes::copy_from_slice(octets));
    let mut out = vec![];
    while !body.done {
        out.extend_from_slice(&body.next_block());
    }
    out
}

#[test]
fn dots_are_stuffed_and_the_end_is_crlf_dot_crlf() {
    for (octets, expected) in [
        (&b""[..], &b".\r\n"[..]),
        (b".", b"..\r\n.\r\n"),
        (b".\r\n", b"..\r\n.\r\n"),
        (b"a\r\n..b\r\n.\r\n", b"a\r\n...b\r\n..\r\n.\r\n"),
        (b"a.b\r\n", b"a.b\r\n.\r\n"),
    ] {
        assert_eq!(stuffed(octets), expected);
    }
}

#[test]
fn dots_at_the_borders_of_blocks_are_stuffed() {
    for shift in 0..4 {
        let octets = [&b"x".repeat(shift)[..], &b"\r\n.".repeat(BLOCK_BYTES)].concat();
        let expected = [&b"x".repeat(shift)[..], &b"\r\n..".repeat(BLOCK_BYTES), b"\r\n.\r\n"].concat();
        assert!(stuffed(&octets) == expected);
    }
}

#[test]
fn bare_cr_and_lf_are_seen() {
    assert!(["", "a", "a\r\nb\r\n\r\n"].iter().all(|good| !has_bare_cr_or_lf(good.as_bytes())));
    for bad in ["\r", "\n", "a\r", "\r\r\n", "\n\r", "a\rb\nc", "\r\n\n", "a\r\nb\rc"] {
        assert!(has_bare_cr_or_lf(bad.as_bytes()), "{bad:?}");
    }
}
