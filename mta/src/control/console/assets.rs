//! Files that pages need, embedded. Their names carry a digest of what is in them, so that browsers may keep them for ever.

use std::sync::LazyLock;

use axum::{
    extract::Path,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use data_encoding::HEXLOWER;

struct Asset {
    /// As links name it: with the digest.
    path: String,
    kind: &'static str,
    octets: &'static [u8],
}

static ASSETS: LazyLock<[Asset; 4]> = LazyLock::new(|| {
    let of = |stem: &str, ending: &str, kind, octets: &'static [u8]| {
        let digest = ring::digest::digest(&ring::digest::SHA256, octets);
        let digest = HEXLOWER.encode(&digest.as_ref()[..8]);
        Asset { path: format!("/assets/{stem}-{digest}.{ending}"), kind, octets }
    };
    let script = "text/javascript; charset=utf-8";
    [
        of("style", "css", "text/css; charset=utf-8", include_bytes!("assets/style.css")),
        of("htmx", "js", script, include_bytes!("assets/htmx-2.0.11.min.js")),
        of("htmx-sse", "js", script, include_bytes!("assets/htmx-sse-2.2.4.min.js")),
        of("icon", "svg", "image/svg+xml", include_bytes!("assets/icon.svg")),
    ]
});

/// Where the style sheet is.
pub(super) fn style() -> &'static str {
    &ASSETS[0].path
}

/// Where the scripts are, in the order to load.
pub(super) fn scripts() -> [&'static str; 2] {
    [&ASSETS[1].path, &ASSETS[2].path]
}

/// Where the icon is.
pub(super) fn icon() -> &'static str {
    &ASSETS[3].path
}

/// `/assets/{name}`. Nothing in them is private.
pub(super) async fn serve(Path(name): Path<String>) -> Response {
    let found = ASSETS.iter().find(|asset| asset.path.strip_prefix("/assets/") == Some(name.as_str()));
    let Some(asset) = found else { return (StatusCode::NOT_FOUND, "no such file\n").into_response() };
    let kept = "public, max-age=31536000, immutable";
    let headers =
        [(header::CONTENT_TYPE, asset.kind), (header::CACHE_CONTROL, kept), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (headers, asset.octets).into_response()
}
