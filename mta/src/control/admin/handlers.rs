//! The handlers of the API: each reads its arguments, asks the operations, and answers JSON.
//!
//! Who may come here, what is audited and what is compared before a change is no business of theirs.

use axum::{
    Json,
    extract::{
        Path as UrlPath, Query, State,
        rejection::{JsonRejection, QueryRejection},
    },
    http::StatusCode,
};
use serde::de::DeserializeOwned;

use super::{Admin, Operations, Operator};
use crate::control::{
    api::{
        ActionFilter, ActionPage, ActionRow, ActionShown, ActionWish, AddMember, AddToken, AuditFilter, AuditPage, ClimbFilter,
        ClimbRow, ClimbShown, CredentialRow, Enrolled, EventFilter, EventPage, ImportKey, Key, Member, NewSecret, NewToken,
        Overview, PAGE_MAX, PlanChecked, PlanRow, PlanShown, PlanWish, QueueDone, QueueFilter, QueuePage, QueueWish,
        QueuedMessage, Reason, Refusal, RemoveKeys, RepliesFilter, RepliesPage, RotateKeys, SetMember, ShapingChecked,
        ShapingRow, ShapingText, ShapingWish, Simulated, SiteShown, SitesFilter, SitesPage, SourceHealthRow, SourceRow, Status,
        StepFilter, StepRow, TokenRow, WarmupPage, WarmupWish, Where, Why,
    },
    wishes::Verb,
};

pub(super) type Answer<T> = Result<Json<T>, Refusal>;

/// axum refuses in its own words and as text; ours are JSON.
fn body<T>(json: Result<Json<T>, JsonRejection>) -> Result<T, Refusal> {
    json.map(|Json(it)| it).map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Refusal::TooLarge,
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Refusal::NotJson,
        _ => Refusal::Wrong(rejection.body_text()),
    })
}

pub(super) fn query<T: DeserializeOwned>(query: Result<Query<T>, QueryRejection>) -> Result<T, Refusal> {
    query.map(|Query(it)| it).map_err(|rejection| Refusal::Wrong(rejection.body_text()))
}

pub(super) async fn status<O: Operations>(State(admin): State<Admin<O>>) -> Answer<Status> {
    admin.operations.status().await.map(Json)
}

pub(super) async fn add_member<O: Operations>(
    State(admin): State<Admin<O>>,
    json: Result<Json<AddMember>, JsonRejection>,
) -> Answer<Enrolled> {
    admin.operations.add_member(body(json)?).await.map(Json)
}

pub(super) async fn members<O: Operations>(State(admin): State<Admin<O>>) -> Answer<Vec<Member>> {
    admin.operations.members().await.map(Json)
}

pub(super) async fn member<O: Operations>(State(admin): State<Admin<O>>, UrlPath(member): UrlPath<String>) -> Answer<Member> {
    admin.operations.member(&member).await.map(Json)
}

pub(super) async fn set_member<O: Operations>(
    State(admin): State<Admin<O>>,
    UrlPath(member): UrlPath<String>,
    json: Result<Json<SetMember>, JsonRejection>,
) -> Answer<Member> {
    admin.operations.set_member(&member, body(json)?).await.map(Json)
}

pub(super) async fn remove_member<O: Operations>(
    State(admin): State<Admin<O>>,
    UrlPath(member): UrlPath<String>,
) -> Answer<Member> {
    admin.operations.remove_member(&member).await.map(Json)
}

pub(super) async fn suspend<O: Operations>(State(admin): State<Admin<O>>, UrlPath(member): UrlPath<String>) -> Answer<Member> {
    admin.operations.suspend(&member, true).await.map(Json)
}

pub(super) async fn resume<O: Operations>(State(admin): State<Admin<O>>, UrlPath(member): UrlPath<String>) -> Answer<Member> {
    admin.operations.suspend(&member, false).await.map(Json)
}

pub(super) async fn import_key<O: Operations>(
    State(admin): State<Admin<O>>,
    json: Result<Json<ImportKey>, JsonRejection>,
) -> Answer<Key> {
    admin.operations.import_key(body(json)?).await.map(Json)
}

pub(super) async fn keys<O: Operations>(State(admin): State<Admin<O>>) -> Answer<Vec<Key>> {
    admin.operations.keys().await.map(Json)
}

pub(super) async fn rotate_keys<O: Operations>(
    State(admin): State<Admin<O>>,
    json: Result<Json<RotateKeys>, JsonRejection>,
) -> Answer<Vec<Key>> {
    admin.operations.rotate_keys(&body(json)?.domain).await.map(Json)
}

pub(super) async fn remove_keys<O: Operations>(
    State(admin): State<Admin<O>>,
    which: Result<Query<RemoveKeys>, QueryRejection>,
) -> Answer<Vec<Key>> {
    let which = query(which)?;
    // A typing slip must not remove more than was meant.
    let ways = usize::from(which.selector.is_some()) + usize::from(which.algorithm.is_some()) + usize::from(which.all);
    if ways != 1 {
        return Err(Refusal::Wrong("name the keys in exactly one way: selector, algorithm or all".to_owned()));
    }
    admin.operations.remove_keys(which).await.map(Json)
}

pub(super) async fn queue<O: Operations>(
    State(admin): State<Admin<O>>,
    filter: Result<Query<QueueFilter>, QueryRejection>,
) -> Answer<QueuePage> {
    let mut filter = query(filter)?;
    filter.limit = Some(filter.limit.unwrap_or(PAGE_MAX).clamp(1, PAGE_MAX));
    admin.operations.queue(filter).await.map(Json)
}

pub(super) async fn queued<O: Operations>(State(admin): State<Admin<O>>, UrlPath(id): UrlPath<String>) -> Answer<QueuedMessage> {
    admin.operations.queued(&id).await.map(Json)
}

pub(super) async fn operate<O: Operations>(
    verb: Verb,
    State(admin): State<Admin<O>>,
    operator: Operator,
    json: Result<Json<QueueWish>, JsonRejection>,
) -> Answer<QueueDone> {
    admin.operations.operate(verb, body(json)?, &operator.to_string()).await.map(Json)
}

pub(super) async fn why<O: Operations>(State(admin): State<Admin<O>>, UrlPath(id): UrlPath<String>) -> Answer<Why> {
    admin.operations.why(&id).await.map(Json)
}

pub(super) async fn sources<O: Operations>(State(admin): State<Admin<O>>) -> Answer<Vec<SourceRow>> {
    admin.operations.sources().await.map(Json)
}

pub(super) async fn shaping<O: Operations>(State(admin): State<Admin<O>>) -> Answer<Vec<ShapingRow>> {
    admin.operations.shaping().await.map(Json)
}

pub(super) async fn shaping_text<O: Operations>(State(admin): State<Admin<O>>) -> Answer<ShapingText> {
    admin.operations.shaping_text().await.map(Json)
}

pub(super) async fn try_shaping<O: Operations>(
    State(admin): State<Admin<O>>,
    json: Result<Json<ShapingWish>, JsonRejection>,
) -> Answer<ShapingChecked> {
    admin.operations.try_shaping(body(json)?).await.map(Json)
}

pub(super) async fn set_shaping<O: Operations>(
    State(admin): State<Admin<O>>,
    json: Result<Json<ShapingWish>, JsonRejection>,
) -> Answer<ShapingText> {
    admin.operations.set_shaping(body(json)?).await.map(Json)
}

pub(super) async fn unset_shaping<O: Operations>(
    State(admin): State<Admin<O>>,
    json: Result<Json<Reason>, JsonRejection>,
) -> Answer<ShapingText> {
    admin.operations.unset_shaping(body(json)?).await.map(Json)
}

pub(super) async fn whereabouts<O: Operations>(State(admin): State<Admin<O>>, UrlPath(domain): UrlPath<String>) -> Answer<Where> {
    admin.operations.whereabouts(&domain).await.map(Json)
}

pub(super) async fn events<O: Operations>(
    State(admin): State<Admin<O>>,
    filter: Result<Query<EventFilter>, QueryRejection>,
) -> Answer<EventPage> {
    admin.operations.events(query(filter)?).await.map(Json)
}

pub(super) async fn actions<O: Operations>(
    State(admin): State<Admin<O>>,
    filter: Result<Query<ActionFilter>, QueryRejection>,
) -> Answer<ActionPage> {
    admin.operations.actions(query(filter)?).await.map(Json)
}

pub(super) async fn action<O: Operations>(State(admin): State<Admin<O>>, UrlPath(id): UrlPath<String>) -> Answer<ActionShown> {
    admin.operations.action(action_id(&id)?).await.map(Json)
}

pub(super) async fn end_action<O: Operations>(
    State(admin): State<Admin<O>>,
    UrlPath(id): UrlPath<String>,
    operator: Operator,
    json: Result<Json<ActionWish>, JsonRejection>,
) -> Answer<ActionRow> {
    admin.operations.end_action(action_id(&id)?, body(json)?, &operator.to_string()).await.map(Json)
}

pub(super) async fn prolong_action<O: Operations>(
    State(admin): State<Admin<O>>,
    UrlPath(id): UrlPath<String>,
    operator: Operator,
    json: Result<Json<ActionWish>, JsonRejection>,
) -> Answer<ActionRow> {
    admin.operations.prolong_action(action_id(&id)?, body(json)?, &operator.to_string()).await.map(Json)
}

fn action_id(id: &str) -> Result<u64, Refusal> {
    id.parse().map_err(|_| Refusal::Wrong(format!("{id:?} is not the number of an action; `tradewind actions list` shows them")))
}

pub(super) async fn source_health<O: Operations>(State(admin): State<Admin<O>>) -> Answer<Vec<SourceHealthRow>> {
    admin.operations.source_health().await.map(Json)
}

pub(super) async fn warmup<O: Operations>(State(admin): State<Admin<O>>) -> Answer<WarmupPage> {
    admin.operations.warmup().await.map(Json)
}

pub(super) async fn climb_steps<O: Operations>(
    State(admin): State<Admin<O>>,
    filter: Result<Query<StepFilter>, QueryRejection>,
) -> Answer<Vec<StepRow>> {
    admin.operations.climb_steps(query(filter)?).await.map(Json)
}

pub(super) async fn climb<O: Operations>(
    State(admin): State<Admin<O>>,
    UrlPath((source, provider)): UrlPath<(String, String)>,
    filter: Result<Query<ClimbFilter>, QueryRejection>,
) -> Answer<ClimbShown> {
    admin.operations.climb(&source, &provider, query(filter)?).await.map(Json)
}

pub(super) async fn steer_climb<O: Operations>(
    State(admin): State<Admin<O>>,
    UrlPath((source, provider, verb)): UrlPath<(String, String, String)>,
    operator: Operator,
    json: Result<Json<WarmupWish>, JsonRejection>,
) -> Answer<ClimbRow> {
    admin.operations.steer_climb((&source, &provider), verb.parse()?, body(json)?, &operator.to_string()).await.map(Json)
}

pub(super) async fn add_token<O: Operations>(
    State(admin): State<Admin<O>>,
    operator: Operator,
    json: Result<Json<AddToken>, JsonRejection>,
) -> Answer<NewToken> {
    admin.operations.add_token(body(json)?, &operator.to_string()).await.map(Json)
}

pub(super) async fn tokens<O: Operations>(State(admin): State<Admin<O>>) -> Answer<Vec<TokenRow>> {
    admin.operations.tokens().await.map(Json)
}

pub(super) async fn revoke_token<O: Operations>(
    State(admin): State<Admin<O>>,
    UrlPath(name): UrlPath<String>,
) -> Answer<TokenRow> {
    admin.operations.revoke_token(&name).await.map(Json)
}

pub(super) async fn audit<O: Operations>(
    State(admin): State<Admin<O>>,
    filter: Result<Query<AuditFilter>, QueryRejection>,
) -> Answer<AuditPage> {
    admin.operations.audit(query(filter)?).await.map(Json)
}

pub(super) async fn overview<O: Operations>(State(admin): State<Admin<O>>) -> Answer<Overview> {
    admin.operations.overview().await.map(Json)
}

pub(super) async fn plans<O: Operations>(State(admin): State<Admin<O>>) -> Answer<Vec<PlanRow>> {
    admin.operations.plans().await.map(Json)
}

pub(super) async fn plan<O: Operations>(State(admin): State<Admin<O>>, UrlPath(name): UrlPath<String>) -> Answer<PlanShown> {
    admin.operations.plan(&name).await.map(Json)
}

pub(super) async fn try_plan<O: Operations>(
    State(admin): State<Admin<O>>,
    UrlPath(name): UrlPath<String>,
    json: Result<Json<PlanWish>, JsonRejection>,
) -> Answer<PlanChecked> {
    admin.operations.try_plan(&name, body(json)?).await.map(Json)
}

pub(super) async fn simulate_plan<O: Operations>(
    State(admin): State<Admin<O>>,
    UrlPath(name): UrlPath<String>,
    json: Result<Json<PlanWish>, JsonRejection>,
) -> Answer<Simulated> {
    admin.operations.simulate_plan(&name, body(json)?).await.map(Json)
}

pub(super) async fn set_plan<O: Operations>(
    State(admin): State<Admin<O>>,
    UrlPath(name): UrlPath<String>,
    json: Result<Json<PlanWish>, JsonRejection>,
) -> Answer<PlanShown> {
    admin.operations.set_plan(&name, body(json)?).await.map(Json)
}

pub(super) async fn unset_plan<O: Operations>(
    State(admin): State<Admin<O>>,
    UrlPath(name): UrlPath<String>,
    json: Result<Json<Reason>, JsonRejection>,
) -> Answer<PlanShown> {
    admin.operations.unset_plan(&name, body(json)?).await.map(Json)
}

pub(super) async fn credentials<O: Operations>(
    State(admin): State<Admin<O>>,
    UrlPath(member): UrlPath<String>,
) -> Answer<Vec<CredentialRow>> {
    admin.operations.credentials(&member).await.map(Json)
}

pub(super) async fn rotate_credential<O: Operations>(
    State(admin): State<Admin<O>>,
    UrlPath((member, id)): UrlPath<(String, String)>,
) -> Answer<NewSecret> {
    admin.operations.rotate_credential(&member, credential_id(&id)?).await.map(Json)
}

pub(super) async fn revoke_credential<O: Operations>(
    State(admin): State<Admin<O>>,
    UrlPath((member, id)): UrlPath<(String, String)>,
) -> Answer<CredentialRow> {
    admin.operations.revoke_credential(&member, credential_id(&id)?).await.map(Json)
}

fn credential_id(id: &str) -> Result<u32, Refusal> {
    id.parse().map_err(|_| Refusal::Wrong(format!("{id:?} is not the number of a credential")))
}

pub(super) async fn sites<O: Operations>(
    State(admin): State<Admin<O>>,
    filter: Result<Query<SitesFilter>, QueryRejection>,
) -> Answer<SitesPage> {
    admin.operations.sites(query(filter)?).await.map(Json)
}

pub(super) async fn site<O: Operations>(State(admin): State<Admin<O>>, UrlPath(site): UrlPath<String>) -> Answer<SiteShown> {
    admin.operations.site(&site).await.map(Json)
}

pub(super) async fn replies<O: Operations>(
    State(admin): State<Admin<O>>,
    filter: Result<Query<RepliesFilter>, QueryRejection>,
) -> Answer<RepliesPage> {
    admin.operations.replies(query(filter)?).await.map(Json)
}
