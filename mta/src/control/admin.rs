//! The admin HTTP servers: the operator's socket (all of [`api`]) and the admin port (only what needs no secret).
//!
//! The socket is `data_dir/admin.sock`, mode 0600: whoever can open it may do everything.
//! The port serves `/healthz` (the process and its disk answer), `/readyz` (every listener is bound, nothing is being
//! shut down), `/metrics` and a status page at `/`.

use std::{future::Future, io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use axum::{
    Extension, Json, Router,
    extract::{Path as UrlPath, Query, State, rejection::JsonRejection},
    http::{StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::{get, post},
};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::de::DeserializeOwned;
use tokio::{
    net::{TcpListener, UnixListener, UnixStream},
    sync::watch,
    time::timeout,
};

use super::{
    admin_warmup,
    api::{
        ActionFilter, ActionPage, ActionRow, ActionShown, ActionWish, AddMember, ClimbFilter, ClimbRow, ClimbShown, ClimbVerb,
        Enrolled, EventFilter, EventPage, ImportKey, Key, Member, PAGE_MAX, QueueDone, QueueFilter, QueuePage, QueueWish,
        QueuedMessage, Refusal, RemoveKeys, RotateKeys, SetMember, ShapingRow, SourceHealthRow, SourceRow, Status, StepFilter,
        StepRow, Trouble, WarmupPage, WarmupWish, Where, Why,
    },
    http, page,
    wishes::Verb,
};

/// What the operator may ask for. The daemon's own is `operations::Daemon`; tests have another.
pub trait Operations: Send + Sync + 'static {
    /// Enrols a member or adds a domain to one.
    fn add_member(&self, member: AddMember) -> impl Future<Output = Result<Enrolled, Refusal>> + Send;
    /// All members.
    fn members(&self) -> impl Future<Output = Result<Vec<Member>, Refusal>> + Send;
    /// The one with this DID or sending domain.
    fn member(&self, member: &str) -> impl Future<Output = Result<Member, Refusal>> + Send;
    /// Puts it into a tier or a pool.
    fn set_member(&self, member: &str, change: SetMember) -> impl Future<Output = Result<Member, Refusal>> + Send;
    /// Stops or starts accepting its mail.
    fn suspend(&self, member: &str, suspended: bool) -> impl Future<Output = Result<Member, Refusal>> + Send;
    /// Forgets it, with its credentials and keys.
    fn remove_member(&self, member: &str) -> impl Future<Output = Result<Member, Refusal>> + Send;
    /// Takes an own key in.
    fn import_key(&self, key: ImportKey) -> impl Future<Output = Result<Key, Refusal>> + Send;
    /// All keys.
    fn keys(&self) -> impl Future<Output = Result<Vec<Key>, Refusal>> + Send;
    /// Makes new keys for a domain.
    fn rotate_keys(&self, domain: &str) -> impl Future<Output = Result<Vec<Key>, Refusal>> + Send;
    /// Removes keys.
    fn remove_keys(&self, which: RemoveKeys) -> impl Future<Output = Result<Vec<Key>, Refusal>> + Send;
    /// Part of the queue; `filter.limit` is set and in range.
    fn queue(&self, filter: QueueFilter) -> impl Future<Output = Result<QueuePage, Refusal>> + Send;
    /// One message.
    fn queued(&self, id: &str) -> impl Future<Output = Result<QueuedMessage, Refusal>> + Send;
    /// Why a message waits, or what became of it.
    fn why(&self, id: &str) -> impl Future<Output = Result<Why, Refusal>> + Send;
    /// How a domain's mail travels.
    fn whereabouts(&self, domain: &str) -> impl Future<Output = Result<Where, Refusal>> + Send;
    /// Our own sources.
    fn sources(&self) -> impl Future<Output = Result<Vec<SourceRow>, Refusal>> + Send;
    /// What of shaping, pools and providers holds now.
    fn shaping(&self) -> impl Future<Output = Result<Vec<ShapingRow>, Refusal>> + Send;
    /// Holds, releases, cancels or flushes; `by` is who asks.
    fn operate(&self, verb: Verb, wish: QueueWish, by: &str) -> impl Future<Output = Result<QueueDone, Refusal>> + Send;
    /// Events; may wait for some.
    fn events(&self, filter: EventFilter) -> impl Future<Output = Result<EventPage, Refusal>> + Send;
    /// Automatic actions that run.
    fn actions(&self, filter: ActionFilter) -> impl Future<Output = Result<ActionPage, Refusal>> + Send;
    /// One of them, or what became of it.
    fn action(&self, id: u64) -> impl Future<Output = Result<ActionShown, Refusal>> + Send;
    /// Ends one; `by` is who asks.
    fn end_action(&self, id: u64, wish: ActionWish, by: &str) -> impl Future<Output = Result<ActionRow, Refusal>> + Send;
    /// Moves the end of one.
    fn prolong_action(&self, id: u64, wish: ActionWish, by: &str) -> impl Future<Output = Result<ActionRow, Refusal>> + Send;
    /// How sources stand.
    fn source_health(&self) -> impl Future<Output = Result<Vec<SourceHealthRow>, Refusal>> + Send;
    /// Where sources stand that warm up.
    fn warmup(&self) -> impl Future<Output = Result<WarmupPage, Refusal>> + Send;
    /// One of them at one provider.
    fn climb(
        &self,
        source: &str,
        provider: &str,
        filter: ClimbFilter,
    ) -> impl Future<Output = Result<ClimbShown, Refusal>> + Send;
    /// What was decided about warmup.
    fn climb_steps(&self, filter: StepFilter) -> impl Future<Output = Result<Vec<StepRow>, Refusal>> + Send;
    /// Steers (source, provider); `by` is who asks.
    fn steer_climb(
        &self,
        of: (&str, &str),
        verb: ClimbVerb,
        wish: WarmupWish,
        by: &str,
    ) -> impl Future<Output = Result<ClimbRow, Refusal>> + Send;
    /// How the daemon is.
    fn status(&self) -> impl Future<Output = Result<Status, Refusal>> + Send;
}

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
}

impl<O> Clone for Admin<O> {
    fn clone(&self) -> Self {
        Admin { operations: self.operations.clone(), metrics: self.metrics.clone(), stage: self.stage.clone() }
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
        tokio::join!(http::serve(self.0, operator_routes(admin)), upkeep);
    }
}

/// The admin port, bound.
pub struct AdminPort(TcpListener);

impl AdminPort {
    /// Binds `address`.
    pub async fn bind(address: SocketAddr) -> io::Result<AdminPort> {
        TcpListener::bind(address).await.map(AdminPort)
    }

    /// Where it listens, for port 0.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Serves until dropped.
    pub async fn serve<O: Operations>(self, admin: Admin<O>) {
        http::serve(self.0, public_routes(admin)).await;
    }
}

pub(super) type Answer<T> = Result<Json<T>, Refusal>;

fn operator_routes<O: Operations>(admin: Admin<O>) -> Router {
    Router::new()
        .route("/v1/status", get(status::<O>))
        .route("/v1/members", post(add_member::<O>).get(members::<O>))
        .route("/v1/members/{member}", get(member::<O>).post(set_member::<O>).delete(remove_member::<O>))
        .route("/v1/members/{member}/suspend", post(suspend::<O>))
        .route("/v1/members/{member}/resume", post(resume::<O>))
        .route("/v1/keys", post(import_key::<O>).get(keys::<O>).delete(remove_keys::<O>))
        .route("/v1/keys/rotate", post(rotate_keys::<O>))
        .route("/v1/queue", get(queue::<O>))
        .route("/v1/queue/{id}", get(queued::<O>))
        .route("/v1/queue/hold", post(|state, by, json| operate::<O>(Verb::Hold, state, by, json)))
        .route("/v1/queue/release", post(|state, by, json| operate::<O>(Verb::Release, state, by, json)))
        .route("/v1/queue/cancel", post(|state, by, json| operate::<O>(Verb::Cancel, state, by, json)))
        .route("/v1/queue/flush", post(|state, by, json| operate::<O>(Verb::Flush, state, by, json)))
        .route("/v1/why/{id}", get(why::<O>))
        .route("/v1/where/{domain}", get(whereabouts::<O>))
        .route("/v1/sources", get(sources::<O>))
        .route("/v1/shaping", get(shaping::<O>))
        .route("/v1/actions", get(actions::<O>))
        .route("/v1/actions/{id}", get(action::<O>))
        .route("/v1/actions/{id}/cancel", post(end_action::<O>))
        .route("/v1/actions/{id}/extend", post(prolong_action::<O>))
        .route("/v1/sources/health", get(source_health::<O>))
        .route("/v1/events", get(events::<O>))
        .merge(admin_warmup::routes())
        .fallback(nothing)
        .with_state(admin)
}

fn public_routes<O: Operations>(admin: Admin<O>) -> Router {
    Router::new()
        .route("/healthz", get(healthz::<O>))
        .route("/readyz", get(readyz::<O>))
        .route("/metrics", get(render_metrics::<O>))
        .route("/", get(status_page::<O>))
        .fallback(nothing)
        .with_state(admin)
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match self {
            Refusal::Wrong(_) => StatusCode::BAD_REQUEST,
            Refusal::Unknown(_) => StatusCode::NOT_FOUND,
            Refusal::Conflict(_) => StatusCode::CONFLICT,
            Refusal::Unable(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        (status, Json(Trouble { error: self.to_string() })).into_response()
    }
}

async fn nothing() -> Refusal {
    Refusal::Unknown("no such path; the daemon and the command may be of different versions".to_owned())
}

/// axum refuses in its own words and as text; ours are JSON.
pub(super) fn body<T>(json: Result<Json<T>, JsonRejection>) -> Result<T, Refusal> {
    json.map(|Json(it)| it).map_err(|rejection| Refusal::Wrong(rejection.body_text()))
}

pub(super) fn query<T: DeserializeOwned>(
    query: Result<Query<T>, axum::extract::rejection::QueryRejection>,
) -> Result<T, Refusal> {
    query.map(|Query(it)| it).map_err(|rejection| Refusal::Wrong(rejection.body_text()))
}

async fn status<O: Operations>(State(admin): State<Admin<O>>) -> Answer<Status> {
    admin.operations.status().await.map(Json)
}

async fn add_member<O: Operations>(
    State(admin): State<Admin<O>>,
    json: Result<Json<AddMember>, JsonRejection>,
) -> Answer<Enrolled> {
    admin.operations.add_member(body(json)?).await.map(Json)
}

async fn members<O: Operations>(State(admin): State<Admin<O>>) -> Answer<Vec<Member>> {
    admin.operations.members().await.map(Json)
}

async fn member<O: Operations>(State(admin): State<Admin<O>>, UrlPath(member): UrlPath<String>) -> Answer<Member> {
    admin.operations.member(&member).await.map(Json)
}

async fn set_member<O: Operations>(
    State(admin): State<Admin<O>>,
    UrlPath(member): UrlPath<String>,
    json: Result<Json<SetMember>, JsonRejection>,
) -> Answer<Member> {
    admin.operations.set_member(&member, body(json)?).await.map(Json)
}

async fn remove_member<O: Operations>(State(admin): State<Admin<O>>, UrlPath(member): UrlPath<String>) -> Answer<Member> {
    admin.operations.remove_member(&member).await.map(Json)
}

async fn suspend<O: Operations>(State(admin): State<Admin<O>>, UrlPath(member): UrlPath<String>) -> Answer<Member> {
    admin.operations.suspend(&member, true).await.map(Json)
}

async fn resume<O: Operations>(State(admin): State<Admin<O>>, UrlPath(member): UrlPath<String>) -> Answer<Member> {
    admin.operations.suspend(&member, false).await.map(Json)
}

async fn import_key<O: Operations>(State(admin): State<Admin<O>>, json: Result<Json<ImportKey>, JsonRejection>) -> Answer<Key> {
    admin.operations.import_key(body(json)?).await.map(Json)
}

async fn keys<O: Operations>(State(admin): State<Admin<O>>) -> Answer<Vec<Key>> {
    admin.operations.keys().await.map(Json)
}

async fn rotate_keys<O: Operations>(
    State(admin): State<Admin<O>>,
    json: Result<Json<RotateKeys>, JsonRejection>,
) -> Answer<Vec<Key>> {
    admin.operations.rotate_keys(&body(json)?.domain).await.map(Json)
}

async fn remove_keys<O: Operations>(
    State(admin): State<Admin<O>>,
    which: Result<Query<RemoveKeys>, axum::extract::rejection::QueryRejection>,
) -> Answer<Vec<Key>> {
    let which = query(which)?;
    // A typing slip must not remove more than was meant.
    let ways = usize::from(which.selector.is_some()) + usize::from(which.algorithm.is_some()) + usize::from(which.all);
    if ways != 1 {
        return Err(Refusal::Wrong("name the keys in exactly one way: selector, algorithm or all".to_owned()));
    }
    admin.operations.remove_keys(which).await.map(Json)
}

async fn queue<O: Operations>(
    State(admin): State<Admin<O>>,
    filter: Result<Query<QueueFilter>, axum::extract::rejection::QueryRejection>,
) -> Answer<QueuePage> {
    let mut filter = query(filter)?;
    filter.limit = Some(filter.limit.unwrap_or(PAGE_MAX).clamp(1, PAGE_MAX));
    admin.operations.queue(filter).await.map(Json)
}

async fn queued<O: Operations>(State(admin): State<Admin<O>>, UrlPath(id): UrlPath<String>) -> Answer<QueuedMessage> {
    admin.operations.queued(&id).await.map(Json)
}

async fn operate<O: Operations>(
    verb: Verb,
    State(admin): State<Admin<O>>,
    by: Option<Extension<http::Peer>>,
    json: Result<Json<QueueWish>, JsonRejection>,
) -> Answer<QueueDone> {
    admin.operations.operate(verb, body(json)?, &whoever(by)).await.map(Json)
}

pub(super) fn whoever(by: Option<Extension<http::Peer>>) -> String {
    by.map_or_else(|| "unknown".to_owned(), |Extension(peer)| peer.to_string())
}

async fn why<O: Operations>(State(admin): State<Admin<O>>, UrlPath(id): UrlPath<String>) -> Answer<Why> {
    admin.operations.why(&id).await.map(Json)
}

async fn sources<O: Operations>(State(admin): State<Admin<O>>) -> Answer<Vec<SourceRow>> {
    admin.operations.sources().await.map(Json)
}

async fn shaping<O: Operations>(State(admin): State<Admin<O>>) -> Answer<Vec<ShapingRow>> {
    admin.operations.shaping().await.map(Json)
}

async fn whereabouts<O: Operations>(State(admin): State<Admin<O>>, UrlPath(domain): UrlPath<String>) -> Answer<Where> {
    admin.operations.whereabouts(&domain).await.map(Json)
}

async fn events<O: Operations>(
    State(admin): State<Admin<O>>,
    filter: Result<Query<EventFilter>, axum::extract::rejection::QueryRejection>,
) -> Answer<EventPage> {
    admin.operations.events(query(filter)?).await.map(Json)
}

async fn actions<O: Operations>(
    State(admin): State<Admin<O>>,
    filter: Result<Query<ActionFilter>, axum::extract::rejection::QueryRejection>,
) -> Answer<ActionPage> {
    admin.operations.actions(query(filter)?).await.map(Json)
}

async fn action<O: Operations>(State(admin): State<Admin<O>>, UrlPath(id): UrlPath<String>) -> Answer<ActionShown> {
    admin.operations.action(action_id(&id)?).await.map(Json)
}

async fn end_action<O: Operations>(
    State(admin): State<Admin<O>>,
    UrlPath(id): UrlPath<String>,
    by: Option<Extension<http::Peer>>,
    json: Result<Json<ActionWish>, JsonRejection>,
) -> Answer<ActionRow> {
    admin.operations.end_action(action_id(&id)?, body(json)?, &whoever(by)).await.map(Json)
}

async fn prolong_action<O: Operations>(
    State(admin): State<Admin<O>>,
    UrlPath(id): UrlPath<String>,
    by: Option<Extension<http::Peer>>,
    json: Result<Json<ActionWish>, JsonRejection>,
) -> Answer<ActionRow> {
    admin.operations.prolong_action(action_id(&id)?, body(json)?, &whoever(by)).await.map(Json)
}

fn action_id(id: &str) -> Result<u64, Refusal> {
    id.parse().map_err(|_| Refusal::Wrong(format!("{id:?} is not the number of an action; `tradewind actions list` shows them")))
}

async fn source_health<O: Operations>(State(admin): State<Admin<O>>) -> Answer<Vec<SourceHealthRow>> {
    admin.operations.source_health().await.map(Json)
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

async fn status_page<O: Operations>(State(admin): State<Admin<O>>) -> Response {
    let stage = *admin.stage.borrow();
    match admin.operations.status().await {
        // Nothing on the page needs a script, a frame or another host.
        Ok(status) => {
            let policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";
            ([(header::CONTENT_SECURITY_POLICY, policy)], Html(page::status(&status, stage))).into_response()
        }
        Err(refusal) => refusal.into_response(),
    }
}

#[cfg(test)]
#[path = "admin_tests.rs"]
mod tests;
