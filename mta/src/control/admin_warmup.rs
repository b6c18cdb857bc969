//! The admin API's paths about warmup.

use axum::{
    Extension, Json, Router,
    extract::{
        Path as UrlPath, Query, State,
        rejection::{JsonRejection, QueryRejection},
    },
    routing::{get, post},
};

use super::admin::{Admin, Answer, Operations, body, query, whoever};
use super::api::{ClimbFilter, ClimbRow, ClimbShown, StepFilter, StepRow, WarmupPage, WarmupWish};
use super::http;

pub(super) fn routes<O: Operations>() -> Router<Admin<O>> {
    Router::new()
        .route("/v1/warmup", get(warmup::<O>))
        .route("/v1/warmup/steps", get(steps::<O>))
        .route("/v1/warmup/{source}/{provider}", get(climb::<O>))
        .route("/v1/warmup/{source}/{provider}/{verb}", post(steer::<O>))
}

async fn warmup<O: Operations>(State(admin): State<Admin<O>>) -> Answer<WarmupPage> {
    admin.operations.warmup().await.map(Json)
}

async fn steps<O: Operations>(
    State(admin): State<Admin<O>>,
    filter: Result<Query<StepFilter>, QueryRejection>,
) -> Answer<Vec<StepRow>> {
    admin.operations.climb_steps(query(filter)?).await.map(Json)
}

async fn climb<O: Operations>(
    State(admin): State<Admin<O>>,
    UrlPath((source, provider)): UrlPath<(String, String)>,
    filter: Result<Query<ClimbFilter>, QueryRejection>,
) -> Answer<ClimbShown> {
    admin.operations.climb(&source, &provider, query(filter)?).await.map(Json)
}

async fn steer<O: Operations>(
    State(admin): State<Admin<O>>,
    UrlPath((source, provider, verb)): UrlPath<(String, String, String)>,
    by: Option<Extension<http::Peer>>,
    json: Result<Json<WarmupWish>, JsonRejection>,
) -> Answer<ClimbRow> {
    admin.operations.steer_climb((&source, &provider), verb.parse()?, body(json)?, &whoever(by)).await.map(Json)
}
