//! One request over the daemon's socket.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, body::Bytes, header};
use hyper_util::rt::TokioIo;
use mta::{config::Config, control::api::Trouble};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::UnixStream, time::timeout};

pub(crate) use mta::control::fetch::escape;

/// A little longer than the daemon's own limit, so that its words are heard.
const WAIT: Duration = Duration::from_secs(35);
/// A full page of the queue has less than 1 MiB.
const ANSWER_BYTES_MAX: usize = 16 << 20;

pub(crate) struct Client {
    socket: PathBuf,
    config: PathBuf,
}

impl Client {
    pub(crate) fn new(config: &Config, path: &Path) -> Client {
        Client { socket: config.admin_socket(), config: path.to_owned() }
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.ask(Method::GET, path, Bytes::new(), None).await
    }

    pub(crate) async fn delete<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.ask(Method::DELETE, path, Bytes::new(), None).await
    }

    /// A change that says all by its path; why is for the audit.
    pub(crate) async fn change<T: DeserializeOwned>(&self, method: Method, path: &str, why: Option<&str>) -> anyhow::Result<T> {
        self.ask(method, path, Bytes::new(), why).await
    }

    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> anyhow::Result<T> {
        self.ask(Method::POST, path, serde_json::to_vec(body)?.into(), None).await
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes, why: Option<&str>) -> anyhow::Result<T> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "admin")
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(why) = why {
            request = request.header("x-why", why.as_bytes());
        }
        let request = request.body(Full::new(body))?;
        timeout(WAIT, self.exchange(request)).await.map_err(|_| anyhow!("the daemon does not answer"))?
    }

    async fn exchange<T: DeserializeOwned>(&self, request: Request<Full<Bytes>>) -> anyhow::Result<T> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.not_there(&error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let response = sender.send_request(request).await.context("the daemon broke the connection")?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| anyhow!("the daemon's answer cannot be read: {error}"))?.to_bytes();
        connection.abort();
        if !status.is_success() {
            match serde_json::from_slice::<Trouble>(&body) {
                Ok(trouble) => bail!("{}", trouble.error),
                Err(_) => bail!("the daemon answered {status}"),
            }
        }
        serde_json::from_slice(&body).context("the daemon's answer is not understood; are both of the same version?")
    }

    fn not_there(&self, error: &io::Error) -> anyhow::Error {
        let (socket, config) = (self.socket.display(), self.config.display());
        match error.kind() {
            io::ErrorKind::NotFound => {
                anyhow!("the daemon isn't running: no socket at {socket}; start it with: tradewind-mta --config {config}")
            }
            io::ErrorKind::ConnectionRefused => {
                anyhow!("the daemon isn't running: nobody serves {socket}; start it with: tradewind-mta --config {config}")
            }
            io::ErrorKind::PermissionDenied => {
                anyhow!("{socket} may not be opened by this user; run the command as the daemon's user or root")
            }
            _ => anyhow!("{socket}: {error}"),
        }
    }
}
