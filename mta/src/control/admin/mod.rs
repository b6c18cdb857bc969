//! The admin HTTP servers: the operator's socket and the admin port.
//!
//! The socket is `data_dir/admin.sock`, mode 0600: whoever can open it may do everything. The port serves the same API below
//! `/v1` to whoever shows an operator's token, and to everybody `/healthz` (the process and its disk answer), `/readyz` (every
//! listener is bound, nothing is being shut down), `/metrics`. The pages of
//! the console are for operators: whoever is not known is led to sign in.
//!
//! - `operator`: who asks and what they may. Start there.
//! - `gate`: how that is found out; `tokens`, `sessions`, `attempts`: what it is held against; `login`: how a browser gets a cookie.
//! - `changes`: what happens around every change: role, version, audit. `protection`: what browsers are told.
//! - `live`: events as they come. `openapi`: the document about all this, from `table` and `shapes`.
//! - `table`: every path of the API with its role; `handlers`: what is done there, by `operations`.

mod attempts;
mod changes;
mod forms;
mod gate;
mod handlers;
mod live;
mod login;
mod openapi;
mod operations;
mod operator;
mod protection;
mod sessions;
mod shapes;
mod table;
pub(super) mod tokens;

use std::{io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use axum::{
    Json, Router,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, Uri, header},
    middleware::{from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::{
    net::{TcpListener, UnixListener, UnixStream},
    sync::watch,
    time::timeout,
};
use tower::ServiceExt;

use super::{
    api::{Refusal, Trouble},
    console::{self, Console},
    http,
};

pub use gate::{Csrf, Gate};
pub use operations::Operations;
pub use operator::{By, MaybeOperator, Operator, Role};
pub use tokens::OperatorKey;

/// How far the daemon is, for `/readyz`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Not every listener is bound yet.
    Starting,
    /// Mail is accepted.
    Ready,
    /// Told to stop; what is in progress is finished.
    Draining,
}

/// What the servers show.
pub struct Admin<O> {
    /// What the operator may ask for.
    pub operations: Arc<O>,
    /// What `/metrics` prints; none without a recorder.
    pub metrics: Option<PrometheusHandle>,
    /// What `/readyz` says.
    pub stage: watch::Receiver<Stage>,
    /// Who may ask.
    pub gate: Arc<Gate>,
    changes: changes::OneAtATime,
    room: live::Room,
}

impl<O> Admin<O> {
    /// Of these parts.
    pub fn new(operations: Arc<O>, metrics: Option<PrometheusHandle>, stage: watch::Receiver<Stage>, gate: Arc<Gate>) -> Self {
        Admin { operations, metrics, stage, gate, changes: Arc::default(), room: live::Room::default() }
    }
}

impl<O> Clone for Admin<O> {
    fn clone(&self) -> Self {
        Admin {
            operations: self.operations.clone(),
            metrics: self.metrics.clone(),
            stage: self.stage.clone(),
            gate: self.gate.clone(),
            changes: self.changes.clone(),
            room: self.room.clone(),
        }
    }
}

/// The operator's socket, bound: binding and serving are apart so that `ready` is only said once it is there.
pub struct AdminSocket(UnixListener);

impl AdminSocket {
    /// Binds `path`, mode 0600. A socket that nobody serves, left by a crash, is replaced.
    pub async fn bind(path: &Path) -> io::Result<AdminSocket> {
        if let Ok(Ok(_)) = timeout(Duration::from_secs(1), UnixStream::connect(path)).await {
            let says = format!("{} is served by another daemon; stop it first", path.display());
            return Err(io::Error::new(io::ErrorKind::AddrInUse, says));
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Until the mode is set only the folder's own mode (0700) protects it: nobody else may enter there.
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        Ok(AdminSocket(listener))
    }

    /// Serves until dropped, and keeps the metrics' memory bounded meanwhile: histograms keep every sample until they are
    /// drained, whether or not anybody reads them.
    pub async fn serve<O: Operations>(self, admin: Admin<O>) {
        let metrics = admin.metrics.clone();
        let upkeep = async move {
            while let Some(metrics) = &metrics {
                tokio::time::sleep(Duration::from_secs(5)).await;
                metrics.run_upkeep();
            }
        };
        tokio::join!(http::serve(self.0, operator_routes(admin), http::Limits::default(), None), upkeep);
    }
}

/// The admin port, bound.
pub struct AdminPort {
    listener: TcpListener,
    limits: http::Limits,
    tls: Option<http::Certificate>,
}

impl AdminPort {
    /// Binds `address`.
    pub async fn bind(address: SocketAddr) -> io::Result<AdminPort> {
        let listener = TcpListener::bind(address).await?;
        Ok(AdminPort { listener, limits: http::Limits::default(), tls: None })
    }

    /// The same, over TLS with this certificate.
    pub fn with_tls(self, certificate: Arc<ArcSwap<host::tls::Server>>) -> AdminPort {
        AdminPort { tls: Some(certificate), ..self }
    }

    /// Where it listens, for port 0.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until dropped.
    pub async fn serve<O: Operations>(self, admin: Admin<O>) {
        http::serve(self.listener, public_routes(admin), self.limits, self.tls).await;
    }
}

/// The API, for those who are known.
fn api<O: Operations>(admin: &Admin<O>) -> Router<Admin<O>> {
    table::routes(admin)
        .fallback(nothing)
        .method_not_allowed_fallback(not_so)
        .layer(from_fn_with_state(admin.clone(), gate::only_operators::<O>))
}

fn operator_routes<O: Operations>(admin: Admin<O>) -> Router {
    api(&admin).with_state(admin)
}

fn public_routes<O: Operations>(admin: Admin<O>) -> Router {
    // What is below /v1 is not told apart before it is known who asks.
    let asks_api = |uri: &Uri| uri.path().split('/').nth(1) == Some("v1");
    let others = Router::new()
        .route("/healthz", get(healthz::<O>))
        .route("/readyz", get(readyz::<O>))
        .route("/metrics", get(render_metrics::<O>))
        .route("/login", get(console::sign_in_page).post(login::log_in::<O>))
        .route("/logout", post(login::log_out::<O>))
        .with_state(admin.clone())
        .merge(pages(&admin))
        .method_not_allowed_fallback(not_so)
        .fallback(nothing);
    let api = api(&admin).with_state(admin);
    Router::new()
        .fallback(move |request: Request| {
            let router = if asks_api(request.uri()) { api.clone() } else { others.clone() };
            async move { router.oneshot(request).await }
        })
        .layer(from_fn(protection::protect))
        .layer(from_fn(protection::only_once))
}

/// The console. It asks the API for what it shows, on behalf of whoever asks for a page.
fn pages<O: Operations>(admin: &Admin<O>) -> Router {
    let operations = admin.operations.clone();
    let console = Console {
        api: table::routes(admin).fallback(nothing).with_state(admin.clone()),
        stage: admin.stage.clone(),
        hostname: Arc::new(move || operations.hostname()),
    };
    console::routes(console).layer(from_fn_with_state(admin.clone(), gate::whoever::<O>))
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match self {
            Refusal::Wrong(_) => StatusCode::BAD_REQUEST,
            Refusal::Unproven => StatusCode::UNAUTHORIZED,
            Refusal::Forbidden(_) => StatusCode::FORBIDDEN,
            Refusal::NotSo => StatusCode::METHOD_NOT_ALLOWED,
            Refusal::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Refusal::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::NotJson => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Refusal::Unknown(_) => StatusCode::NOT_FOUND,
            Refusal::Conflict(_) => StatusCode::CONFLICT,
            Refusal::Unable(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        let mut response = (status, Json(Trouble::of(self.to_string()))).into_response();
        if status == StatusCode::UNAUTHORIZED {
            // RFC 9110 §11.6.1.
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

async fn nothing() -> Refusal {
    Refusal::Unknown("no such path; the daemon and the command may be of different versions".to_owned())
}

async fn not_so() -> Refusal {
    Refusal::NotSo
}

/// Healthy: the disk answers. Whoever restarts us on an error must not do so because a labeler is away.
async fn healthz<O: Operations>(State(admin): State<Admin<O>>) -> Response {
    match timeout(Duration::from_secs(5), admin.operations.status()).await {
        Ok(Ok(_)) => "ok\n".into_response(),
        Ok(Err(refusal)) => (StatusCode::SERVICE_UNAVAILABLE, format!("{refusal}\n")).into_response(),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the queue does not answer\n").into_response(),
    }
}

async fn readyz<O: Operations>(State(admin): State<Admin<O>>) -> Response {
    let stage = *admin.stage.borrow();
    match stage {
        Stage::Ready => "ready\n".into_response(),
        Stage::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting\n").into_response(),
        Stage::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response(),
    }
}

async fn render_metrics<O: Operations>(State(admin): State<Admin<O>>) -> Response {
    match &admin.metrics {
        Some(metrics) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], metrics.render()).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "no recorder is installed\n").into_response(),
    }
}

#[cfg(test)]
mod changes_tests;
#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod login_tests;
#[cfg(test)]
mod openapi_tests;
#[cfg(test)]
mod probe;
#[cfg(test)]
mod schema_check;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tls_tests;
