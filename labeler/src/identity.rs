//! From a DID to its document: did:plc by the directory, did:web by its host. Nothing is kept: each check asks anew.

use atproto::Did;
use atproto::did::{DOCUMENT_BYTES_MAX, Document, web_document_url};
use url::Url;

use crate::fetch::{Fetcher, From};

/// Why there is no document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unresolved {
    /// Whoever is responsible says that there is none.
    Gone(String),
    /// Nobody could say.
    Unknown(String),
}

/// Resolves DIDs.
#[derive(Clone)]
pub(crate) struct Resolver {
    pub(crate) fetcher: Fetcher,
    pub(crate) plc_url: Url,
}

impl Resolver {
    pub(crate) async fn resolve(&self, did: &Did) -> Result<Document, Unresolved> {
        let (url, from) = match (did.as_str().strip_prefix("did:plc:"), web_document_url(did)) {
            (Some(_), _) => (format!("{}/{}", self.plc_url.as_str().trim_end_matches('/'), did.as_str()), From::Configuration),
            (_, Some(url)) => (url, From::Stranger),
            _ => return Err(Unresolved::Gone("neither a did:plc nor a did:web of a host".into())),
        };
        let url = Url::parse(&url).map_err(|error| Unresolved::Gone(error.to_string()))?;
        let answer = self.fetcher.get(&url, from, DOCUMENT_BYTES_MAX).await.map_err(Unresolved::Unknown)?;
        match answer.status {
            200 => Document::parse(&answer.body, did).map_err(|error| Unresolved::Unknown(error.to_string())),
            404 | 410 => Err(Unresolved::Gone(format!("there is no document of this DID ({})", answer.status))),
            status => Err(Unresolved::Unknown(format!("the document is answered with {status}"))),
        }
    }
}
