//! The way to the pages about plans: a text is looked at, tried out, applied, undone.

use axum::{
    Form,
    extract::{Path, Query},
    http::StatusCode,
    response::{IntoResponse, Redirect},
};
use serde::de::IgnoredAny;

use super::{
    Desk, Fields,
    ask::{Found, Refused},
    frame::{self, Place},
    given,
    handlers::{OrPage, Shown, back, seen},
    number,
    parts::segment,
    plans::{self, Draft, evenly, path, with_stages},
    why,
};
use crate::control::api::{PlanChecked, PlanRow, PlanShown, PlanWish, Reason, Simulated};

const PLACE: Place = Place::Plans;

/// `/plans`, and the way to a new one.
pub(super) async fn plans(desk: Desk, Query(fields): Query<Fields>) -> Shown {
    if let Some(new) = given(&fields, "new") {
        return Ok(Redirect::to(&path(&new)).into_response());
    }
    let all: Vec<PlanRow> = desk.api.get("/v1/plans").await.or_page(PLACE, &desk)?;
    Ok(frame::page(PLACE, &desk.viewer, "Plans", &plans::index(&desk.viewer, &all)))
}

/// One plan, or an empty page for one that is not there yet.
pub(super) async fn plan(desk: Desk, Path(name): Path<String>) -> Shown {
    let found = found(&desk, &name).await.or_page(PLACE, &desk)?;
    let new = format!("[[plan]]\nname = \"{name}\"\nstages = [100, 200, 400]\n");
    let (text, version) = match &found {
        Some(found) => (found.it.text.as_str(), found.etag.as_deref()),
        None => (new.as_str(), None),
    };
    let checked: PlanChecked = look_at(&desk, &name, text).await.or_page(PLACE, &desk)?;
    // That what holds is a plan need not be said.
    let draft = Draft { text, checked: Some(&checked).filter(|_| found.is_some()), simulated: None, version };
    let body = plans::page(&desk.viewer, &name, found.as_ref().map(|found| &found.it), &draft);
    Ok(frame::page(PLACE, &desk.viewer, &name, &body))
}

/// While somebody writes: what is wrong, as part of the page.
pub(super) async fn check_plan(desk: Desk, Path(name): Path<String>, Form(fields): Form<Fields>) -> Shown {
    let checked = look_at(&desk, &name, &text(&fields)).await.or_page(PLACE, &desk)?;
    Ok(frame::part(plans::problems(Some(&checked))))
}

/// What would come of it. Stages that were filled in take the place of those in the text.
pub(super) async fn try_plan(desk: Desk, Path(name): Path<String>, Form(fields): Form<Fields>) -> Shown {
    let text = edited(&fields).or_page(PLACE, &desk)?;
    let found = found(&desk, &name).await.or_page(PLACE, &desk)?;
    let checked: PlanChecked = look_at(&desk, &name, &text).await.or_page(PLACE, &desk)?;
    let simulated: Option<Simulated> = match checked.ok {
        true => {
            let wish = PlanWish { text: text.clone(), why: String::new() };
            let of = format!("/v1/plans/{}/simulate", segment(&name));
            Some(desk.api.post(&of, Some(&wish), Default::default()).await.or_page(PLACE, &desk)?)
        }
        false => None,
    };
    let draft = Draft {
        text: &text,
        checked: Some(&checked),
        simulated: simulated.as_ref(),
        // What was seen when the writing began, not what is there now.
        version: fields.get("version").map(String::as_str),
    };
    let body = plans::page(&desk.viewer, &name, found.as_ref().map(|found| &found.it), &draft);
    Ok(frame::page(PLACE, &desk.viewer, &name, &body))
}

/// Makes it so.
pub(super) async fn apply_plan(desk: Desk, Path(name): Path<String>, Form(fields): Form<Fields>) -> Shown {
    let wish = why(&fields).map(|why| PlanWish { text: text(&fields), why });
    let wish = wish.or_page(PLACE, &desk)?;
    let of = format!("/v1/plans/{}", segment(&name));
    desk.api.post::<IgnoredAny>(&of, Some(&wish), seen(&fields)).await.or_page(PLACE, &desk)?;
    Ok(back(&path(&name), "applied"))
}

/// Puts back what was there before.
pub(super) async fn undo_plan(desk: Desk, Path(name): Path<String>, Form(fields): Form<Fields>) -> Shown {
    let wish = why(&fields).map(|why| Reason { why }).or_page(PLACE, &desk)?;
    let of = format!("/v1/plans/{}/undo", segment(&name));
    desk.api.post::<IgnoredAny>(&of, Some(&wish), seen(&fields)).await.or_page(PLACE, &desk)?;
    Ok(back(&path(&name), "undone"))
}

async fn found(desk: &Desk, name: &str) -> Result<Option<Found<PlanShown>>, Refused> {
    match desk.api.find(&format!("/v1/plans/{}", segment(name))).await {
        Ok(found) => Ok(Some(found)),
        Err(Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(None),
        Err(refused) => Err(refused),
    }
}

async fn look_at(desk: &Desk, name: &str, text: &str) -> Result<PlanChecked, Refused> {
    let wish = PlanWish { text: text.to_owned(), why: String::new() };
    desk.api.post(&format!("/v1/plans/{}/check", segment(name)), Some(&wish), Default::default()).await
}

/// Browsers write lines with CR LF.
pub(super) fn text(fields: &Fields) -> String {
    fields.get("text").map(|text| text.replace("\r\n", "\n")).unwrap_or_default()
}

fn edited(fields: &Fields) -> Result<String, Refused> {
    let text = text(fields);
    let stages: Option<Vec<u64>> = match (given(fields, "stages"), number(fields, "first")?) {
        (Some(list), _) => {
            let stage = |word: &str| word.parse().map_err(|_| Refused::wrong(format!("{word:?} is no number of recipients")));
            let words = list.split([',', ' ', '\n', '\r', '\t']).filter(|word| !word.is_empty());
            Some(words.map(stage).collect::<Result<_, _>>()?)
        }
        (None, Some(first)) => {
            let needed = |name: &str| Refused::wrong(format!("{name} is needed"));
            let (last, days) = (number(fields, "last")?, number::<u16>(fields, "days")?);
            Some(evenly(first, last.ok_or_else(|| needed("the last day"))?, days.ok_or_else(|| needed("how many days"))?.into()))
        }
        (None, None) => None,
    };
    match stages {
        None => Ok(text),
        Some(stages) => with_stages(&text, &stages)
            .ok_or_else(|| Refused::wrong("the text is no table [[plan]]; mend it before the form changes its stages")),
    }
}
