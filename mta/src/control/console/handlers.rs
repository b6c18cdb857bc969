//! What happens on the way to a page: what it needs is asked of the API, and a form becomes a request to it.

use axum::{
    Form,
    extract::{Path, Query},
    http::Method,
    response::{IntoResponse, Redirect, Response},
};
use maud::Markup;
use serde::de::IgnoredAny;

use super::{
    Desk, Fields,
    ask::{Change, Found, Refused, with_query},
    done,
    frame::{self, Place},
    given,
    members::Versions,
    number,
    parts::segment,
    why,
};
use crate::control::api::{
    ActionPage, ActionShown, ActionWish, AuditFilter, AuditPage, ClimbShown, CredentialRow, Key, Member, NewSecret, Overview,
    QueueDone, QueueFilter, QueuePage, QueueWish, QueuedMessage, RepliesFilter, RepliesPage, ShapingRow, SitesPage, SourceRow,
    WarmupPage, WarmupWish, Where, Why,
};

pub(super) type Shown = Result<Response, Response>;

/// Fails as a page of its place.
pub(super) trait OrPage<T> {
    fn or_page(self, place: Place, desk: &Desk) -> Result<T, Response>;
}

impl<T> OrPage<T> for Result<T, Refused> {
    fn or_page(self, place: Place, desk: &Desk) -> Result<T, Response> {
        self.map_err(|refused| frame::refused(place, &desk.viewer, &refused))
    }
}

/// Back to a page that says what was done there.
pub(super) fn back(page: &str, done: &str) -> Response {
    Redirect::to(&with_query(page, &[(done::NAME, Some(done))])).into_response()
}

/// The version that the form's page showed. A form without one wants whatever there is: it was made by hand.
pub(super) fn seen(fields: &Fields) -> Change<'_> {
    Change { version: Some(fields.get("version").map_or("*", String::as_str)), why: None }
}

pub(super) async fn overview(desk: Desk) -> Shown {
    let inside = overview_inside(&desk).await.or_page(Place::Overview, &desk)?;
    let body = super::overview::page(&desk.viewer.hostname, desk.stage, &inside);
    Ok(frame::page(Place::Overview, &desk.viewer, "Overview", &body))
}

/// What the page asks for again when there is news.
pub(super) async fn overview_part(desk: Desk) -> Shown {
    Ok(frame::part(overview_inside(&desk).await.or_page(Place::Overview, &desk)?))
}

async fn overview_inside(desk: &Desk) -> Result<Markup, Refused> {
    let overview: Overview = desk.api.get("/v1/overview").await?;
    let climbs: WarmupPage = desk.api.get("/v1/warmup").await?;
    Ok(super::overview::inside(&overview, &climbs))
}

pub(super) async fn warmup_grid(desk: Desk) -> Shown {
    let climbs = desk.api.get("/v1/warmup").await.or_page(Place::Warmup, &desk)?;
    Ok(frame::page(Place::Warmup, &desk.viewer, "Warmup", &super::warmup::page(&climbs)))
}

pub(super) async fn climb(desk: Desk, Path((source, provider)): Path<(String, String)>) -> Shown {
    let path = format!("/v1/warmup/{}/{}", segment(&source), segment(&provider));
    let shown: Found<ClimbShown> = desk.api.find(&path).await.or_page(Place::Warmup, &desk)?;
    let body = super::climb::page(&desk.viewer, &shown.it, shown.etag.as_deref());
    Ok(frame::page(Place::Warmup, &desk.viewer, &format!("{source} at {provider}"), &body))
}

pub(super) async fn steer(
    desk: Desk,
    Path((source, provider, verb)): Path<(String, String, String)>,
    Form(fields): Form<Fields>,
) -> Shown {
    let wish = || -> Result<WarmupWish, Refused> {
        let (stage, stages) = (number(&fields, "stage")?, number(&fields, "stages")?);
        Ok(WarmupWish { why: why(&fields)?, stage, stages, recipients: number(&fields, "recipients")? })
    };
    let wish = wish().or_page(Place::Warmup, &desk)?;
    let page = format!("/warmup/{}/{}", segment(&source), segment(&provider));
    let steered = desk.api.post::<IgnoredAny>(&format!("/v1{page}/{}", segment(&verb)), Some(&wish), seen(&fields)).await;
    steered.or_page(Place::Warmup, &desk)?;
    Ok(back(&page, &verb))
}

pub(super) async fn queue(desk: Desk, Query(fields): Query<Fields>) -> Shown {
    let filter = QueueFilter {
        domain: given(&fields, "domain"),
        member: given(&fields, "member"),
        held: fields.contains_key("held"),
        after: given(&fields, "after"),
        ..QueueFilter::default()
    };
    let rows = super::queue::ROWS.to_string();
    let path = with_query(
        "/v1/queue",
        &[
            ("domain", filter.domain.as_deref()),
            ("member", filter.member.as_deref()),
            ("held", filter.held.then_some("true")),
            ("after", filter.after.as_deref()),
            ("limit", Some(&rows)),
        ],
    );
    let page: QueuePage = desk.api.get(&path).await.or_page(Place::Queue, &desk)?;
    Ok(frame::page(Place::Queue, &desk.viewer, "Queue", &super::queue::page(&desk.viewer, &filter, &page)))
}

pub(super) async fn message(desk: Desk, Path(id): Path<String>) -> Shown {
    let why: Why = desk.api.get(&format!("/v1/why/{}", segment(&id))).await.or_page(Place::Queue, &desk)?;
    let message: Option<QueuedMessage> = match why.queued {
        // It may leave the queue between the two questions; its events are kept longer.
        true => desk.api.get(&format!("/v1/queue/{}", segment(&id))).await.ok(),
        false => None,
    };
    let body = super::queue::message(&desk.viewer, &id, message.as_ref(), &why);
    Ok(frame::page(Place::Queue, &desk.viewer, &format!("Message {id}"), &body))
}

/// `POST /queue/hold` and its like: the last part of the path is the verb.
pub(super) async fn operate(desk: Desk, Path(verb): Path<String>, Form(fields): Form<Fields>) -> Shown {
    let wish = QueueWish {
        id: given(&fields, "id"),
        member: given(&fields, "member"),
        domain: given(&fields, "domain"),
        reason: Some(why(&fields).or_page(Place::Queue, &desk)?),
        after: given(&fields, "after"),
        ..QueueWish::default()
    };
    let path = format!("/v1/queue/{}", segment(&verb));
    let done: QueueDone = desk.api.post(&path, Some(&wish), Change::default()).await.or_page(Place::Queue, &desk)?;
    if let Some(id) = &wish.id {
        let said = match done {
            QueueDone { changed: 0, in_flight: 0, .. } => "unchanged",
            QueueDone { changed: 0, .. } => "in-flight",
            _ => &verb,
        };
        return Ok(back(&format!("/queue/{}", segment(id)), said));
    }
    let list = with_query("/queue", &[("domain", wish.domain.as_deref()), ("member", wish.member.as_deref())]);
    let body = super::queue::done(&desk.viewer, &verb, &wish, &done, &list);
    Ok(frame::page(Place::Queue, &desk.viewer, "Done", &body))
}

pub(super) async fn sites(desk: Desk, Query(fields): Query<Fields>) -> Shown {
    if let Some(domain) = given(&fields, "domain") {
        return Ok(Redirect::to(&format!("/sites/{}", segment(&domain))).into_response());
    }
    let find = given(&fields, "find");
    let path = with_query("/v1/sites", &[("find", find.as_deref()), ("after", given(&fields, "after").as_deref())]);
    let page: SitesPage = desk.api.get(&path).await.or_page(Place::Sites, &desk)?;
    let shaping: Vec<ShapingRow> = desk.api.get("/v1/shaping").await.or_page(Place::Sites, &desk)?;
    let body = super::sites::index(find.as_deref().unwrap_or(""), &page, &shaping);
    Ok(frame::page(Place::Sites, &desk.viewer, "Sites", &body))
}

pub(super) async fn site(desk: Desk, Path(domain): Path<String>) -> Shown {
    let found: Where = desk.api.get(&format!("/v1/where/{}", segment(&domain))).await.or_page(Place::Sites, &desk)?;
    Ok(frame::page(Place::Sites, &desk.viewer, &found.domain, &super::sites::page(&found)))
}

pub(super) async fn actions(desk: Desk, Query(fields): Query<Fields>) -> Shown {
    let rows = super::queue::ROWS.to_string();
    let path = with_query("/v1/actions", &[("after", given(&fields, "after").as_deref()), ("limit", Some(&rows))]);
    let page: ActionPage = desk.api.get(&path).await.or_page(Place::Actions, &desk)?;
    Ok(frame::page(Place::Actions, &desk.viewer, "Automatic actions", &super::actions::page(&desk.viewer, &page)))
}

pub(super) async fn action(desk: Desk, Path(id): Path<u64>) -> Shown {
    let shown: Found<ActionShown> = desk.api.find(&format!("/v1/actions/{id}")).await.or_page(Place::Actions, &desk)?;
    let body = super::actions::one(&desk.viewer, id, &shown.it, shown.etag.as_deref());
    Ok(frame::page(Place::Actions, &desk.viewer, &format!("Action {id}"), &body))
}

pub(super) async fn end_or_extend(desk: Desk, Path((id, verb)): Path<(u64, String)>, Form(fields): Form<Fields>) -> Shown {
    let wish = why(&fields).map(|why| ActionWish { why, lasts: given(&fields, "for") });
    let wish = wish.or_page(Place::Actions, &desk)?;
    let done = desk.api.post::<IgnoredAny>(&format!("/v1/actions/{id}/{}", segment(&verb)), Some(&wish), seen(&fields)).await;
    done.or_page(Place::Actions, &desk)?;
    Ok(back(&format!("/actions/{id}"), &verb))
}

pub(super) async fn members(desk: Desk) -> Shown {
    let members: Vec<Member> = desk.api.get("/v1/members").await.or_page(Place::Members, &desk)?;
    Ok(frame::page(Place::Members, &desk.viewer, "Members", &super::members::page(&members)))
}

pub(super) async fn member(desk: Desk, Path(member): Path<String>) -> Shown {
    let path = format!("/v1/members/{}", segment(&member));
    let Found { it: found, etag }: Found<Member> = desk.api.find(&path).await.or_page(Place::Members, &desk)?;
    let secrets: Found<Vec<CredentialRow>> =
        desk.api.find(&format!("{path}/credentials")).await.or_page(Place::Members, &desk)?;
    let keys: Vec<Key> = desk.api.get("/v1/keys").await.or_page(Place::Members, &desk)?;
    let own: Vec<_> = keys.iter().filter(|key| found.domains.contains(&key.domain)).collect();
    let versions = Versions { member: etag.as_deref(), credentials: secrets.etag.as_deref() };
    let body = super::members::one(&desk.viewer, &found, &own, &secrets.it, versions);
    Ok(frame::page(Place::Members, &desk.viewer, &found.did, &body))
}

/// `rotate` shows the new password on a page of its own, `revoke` leads back.
pub(super) async fn renew_or_revoke(
    desk: Desk,
    Path((member, id, verb)): Path<(String, String, String)>,
    Form(fields): Form<Fields>,
) -> Shown {
    let why = why(&fields).or_page(Place::Members, &desk)?;
    let page = format!("/members/{}", segment(&member));
    let path = format!("/v1{page}/credentials/{}", segment(&id));
    let change = Change { why: Some(&why), ..seen(&fields) };
    if verb == "revoke" {
        let done = desk.api.send::<IgnoredAny>(Method::DELETE, &path, None::<&()>, change).await;
        done.or_page(Place::Members, &desk)?;
        return Ok(back(&page, "revoked"));
    }
    let path = format!("{path}/{}", segment(&verb));
    let secret: NewSecret = desk.api.post(&path, None::<&()>, change).await.or_page(Place::Members, &desk)?;
    Ok(frame::page(Place::Members, &desk.viewer, "A new password", &super::members::renewed(&page, &secret)))
}

pub(super) async fn suspend_or_resume(
    desk: Desk,
    Path((member, verb)): Path<(String, String)>,
    Form(fields): Form<Fields>,
) -> Shown {
    let why = why(&fields).or_page(Place::Members, &desk)?;
    let page = format!("/members/{}", segment(&member));
    let change = Change { why: Some(&why), ..seen(&fields) };
    let done = desk.api.post::<IgnoredAny>(&format!("/v1{page}/{}", segment(&verb)), None::<&()>, change).await;
    done.or_page(Place::Members, &desk)?;
    Ok(back(&page, &verb))
}

pub(super) async fn audit(desk: Desk, Query(fields): Query<Fields>) -> Shown {
    let before = number(&fields, "before").or_page(Place::Audit, &desk)?;
    let filter = AuditFilter { before, who: given(&fields, "who"), about: given(&fields, "about"), limit: None };
    let before = before.map(|number| number.to_string());
    let pairs = [("before", before.as_deref()), ("who", filter.who.as_deref()), ("about", filter.about.as_deref())];
    let page: AuditPage = desk.api.get(&with_query("/v1/audit", &pairs)).await.or_page(Place::Audit, &desk)?;
    Ok(frame::page(Place::Audit, &desk.viewer, "Audit log", &super::audit::page(&filter, &page)))
}

pub(super) async fn sources(desk: Desk) -> Shown {
    let sources: Vec<SourceRow> = desk.api.get("/v1/sources").await.or_page(Place::Sources, &desk)?;
    Ok(frame::page(Place::Sources, &desk.viewer, "Sources", &super::sources::page(&sources)))
}

pub(super) async fn replies(desk: Desk, Query(fields): Query<Fields>) -> Shown {
    let [class, provider, source] = ["class", "provider", "source"].map(|name| given(&fields, name));
    let pairs = [("class", class.as_deref()), ("provider", provider.as_deref()), ("source", source.as_deref())];
    let page: RepliesPage = desk.api.get(&with_query("/v1/replies", &pairs)).await.or_page(Place::Replies, &desk)?;
    let filter = RepliesFilter { class, provider, source };
    Ok(frame::page(Place::Replies, &desk.viewer, "Replies", &super::replies::page(&filter, &page)))
}
