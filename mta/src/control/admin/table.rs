//! The table of the API: every path, what it does, and the role that it needs. Routes, the OpenAPI document and tests are made
//! from it, so that none of them can know a path that another does not.

use axum::{
    Router,
    extract::{Request, State},
    handler::Handler,
    http::Method,
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{MethodFilter, MethodRouter, on},
};

use super::operator::{Operator, Role};
use super::{Admin, Operations, handlers as h};
use crate::control::wishes::Verb;

/// One line of the table.
pub(super) struct Route<O> {
    pub(super) rule: Rule,
    run: MethodRouter<Admin<O>>,
}

/// What of a line is not its handler.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) method: Method,
    /// From `/v1` on, with arguments in braces.
    pub(super) path: &'static str,
    /// The least that may ask.
    pub(super) role: Role,
    /// What it does, in a line.
    pub(super) says: &'static str,
}

/// All of them.
pub(super) fn table<O: Operations>() -> Vec<Route<O>> {
    use Role::{Admin as Adm, Operate as Op, Read};
    vec![
        get("/v1/status", Read, h::status::<O>, "How the daemon is"),
        get("/v1/members", Read, h::members::<O>, "All members"),
        post("/v1/members", Adm, h::add_member::<O>, "Enrol a member, or give one another domain"),
        get("/v1/members/{member}", Read, h::member::<O>, "One member, by DID or sending domain"),
        post("/v1/members/{member}", Adm, h::set_member::<O>, "Put it into a tier or a pool"),
        delete("/v1/members/{member}", Adm, h::remove_member::<O>, "Forget it, with credentials and keys; answers it as it was"),
        post("/v1/members/{member}/suspend", Op, h::suspend::<O>, "Accept no mail of it"),
        post("/v1/members/{member}/resume", Op, h::resume::<O>, "Accept its mail again"),
        get("/v1/keys", Read, h::keys::<O>, "DKIM keys, without their private parts"),
        post("/v1/keys", Adm, h::import_key::<O>, "Bring an own key"),
        delete("/v1/keys", Adm, h::remove_keys::<O>, "Remove keys; answers those removed"),
        post("/v1/keys/rotate", Adm, h::rotate_keys::<O>, "Make new keys beside the old; answers the new"),
        get("/v1/queue", Read, h::queue::<O>, "What waits to be delivered"),
        get("/v1/queue/{id}", Read, h::queued::<O>, "One message, with what became of each recipient"),
        post("/v1/queue/hold", Op, |a, b, c| h::operate::<O>(Verb::Hold, a, b, c), "Not tried until released"),
        post("/v1/queue/release", Op, |a, b, c| h::operate::<O>(Verb::Release, a, b, c), "No longer held"),
        post("/v1/queue/cancel", Op, |a, b, c| h::operate::<O>(Verb::Cancel, a, b, c), "Gone"),
        post(
            "/v1/queue/flush",
            Op,
            |a, b, c| h::operate::<O>(Verb::Flush, a, b, c),
            "Due now, and the site no longer left alone",
        ),
        get("/v1/why/{id}", Read, h::why::<O>, "Why a message waits, or what became of it"),
        get("/v1/where/{domain}", Read, h::whereabouts::<O>, "How a domain's mail travels"),
        get("/v1/sources", Read, h::sources::<O>, "Our own sources"),
        get("/v1/sources/health", Read, h::source_health::<O>, "How they stand"),
        get("/v1/shaping", Read, h::shaping::<O>, "What of shaping, pools and providers holds now"),
        get("/v1/actions", Read, h::actions::<O>, "Automatic actions that run"),
        get("/v1/actions/{id}", Read, h::action::<O>, "One of them, or what became of it"),
        post("/v1/actions/{id}/cancel", Op, h::end_action::<O>, "End it"),
        post("/v1/actions/{id}/extend", Op, h::prolong_action::<O>, "Move its end"),
        get("/v1/warmup", Read, h::warmup::<O>, "Where sources stand that warm up"),
        get("/v1/warmup/steps", Read, h::climb_steps::<O>, "What was decided about warmup, the newest first"),
        get("/v1/warmup/{source}/{provider}", Read, h::climb::<O>, "One source at one provider, day by day"),
        post(
            "/v1/warmup/{source}/{provider}/{verb}",
            Op,
            h::steer_climb::<O>,
            "Steer it: set, pin, unpin, pause, resume, skip, rewind, complaints",
        ),
        get("/v1/events", Read, h::events::<O>, "What became of mail; waits for news if told to"),
        get("/v1/tokens", Adm, h::tokens::<O>, "Operators' tokens, without their secrets"),
        post("/v1/tokens", Adm, h::add_token::<O>, "Make one; its secret is told here and never again"),
        delete("/v1/tokens/{name}", Adm, h::revoke_token::<O>, "Make one worthless, and end its logins"),
    ]
}

/// The routes of the table, each behind its role.
pub(super) fn routes<O: Operations>() -> Router<Admin<O>> {
    table().into_iter().fold(Router::new(), |router, Route { rule, run }| {
        let path = rule.path;
        router.route(path, run.layer(from_fn_with_state(rule, guard)))
    })
}

/// What happens before and after every handler of the table.
async fn guard(State(rule): State<Rule>, operator: Operator, request: Request, next: Next) -> Response {
    if let Err(refusal) = operator.check(rule.role) {
        tracing::warn!(%operator, role = %operator.role, method = %rule.method, path = rule.path, what = rule.says, "refused: the role does not suffice");
        return refusal.into_response();
    }
    next.run(request).await
}

fn get<O: Operations, H: Handler<T, Admin<O>>, T: 'static>(
    path: &'static str,
    role: Role,
    handler: H,
    says: &'static str,
) -> Route<O> {
    route((Method::GET, MethodFilter::GET), path, role, handler, says)
}

fn post<O: Operations, H: Handler<T, Admin<O>>, T: 'static>(
    path: &'static str,
    role: Role,
    handler: H,
    says: &'static str,
) -> Route<O> {
    route((Method::POST, MethodFilter::POST), path, role, handler, says)
}

fn delete<O: Operations, H: Handler<T, Admin<O>>, T: 'static>(
    path: &'static str,
    role: Role,
    handler: H,
    says: &'static str,
) -> Route<O> {
    route((Method::DELETE, MethodFilter::DELETE), path, role, handler, says)
}

fn route<O: Operations, H: Handler<T, Admin<O>>, T: 'static>(
    (method, filter): (Method, MethodFilter),
    path: &'static str,
    role: Role,
    handler: H,
    says: &'static str,
) -> Route<O> {
    Route { rule: Rule { method, path, role, says }, run: on(filter, handler) }
}
