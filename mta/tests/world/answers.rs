//! What the API answers about mail in motion is as its document says: here, where there are automatic actions, young sources and sites.
//!
//! What can be asked without a scheduler is held against the document beside the API's own tests.

use std::time::Duration;

use loadtest::sink::{Act, Rule, Script, Stage};
use mta::control::admin::Operations;
use mta::control::api::{
    ActionFilter, ActionWish, ClimbFilter, ClimbVerb, EventFilter, QueueFilter, SitesFilter, StepFilter, WarmupWish,
};
use serde::Serialize;
use serde_json::Value;

use super::HOUR;
use super::parts::World;
use super::schema_check::check;

const BIG: &str = "big.example";
const SLOW: &str = "slow.example";

fn document() -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Holds an answer against what the document says of it.
fn hold(document: &Value, (method, path): (&str, &str), answer: &impl Serialize) -> Value {
    let operation = &document["paths"][path][method];
    let schema = &operation["responses"]["200"]["content"]["application/json"]["schema"];
    assert!(schema.is_object(), "{path} is not in the document");
    let answer = serde_json::to_value(answer).unwrap();
    check(document, schema, &answer, path);
    answer
}

#[test]
fn answers_about_mail_in_motion_are_as_the_document_says() {
    let climb = "[warmup]\nfiles = [\"plans.toml\"]\n[[climb]]\nsource = \"ip-a\"\nprovider = \"other\"\nplan = \"slow\"\n";
    let refused = Rule::new(Stage::Connect, Act::reply("421 4.3.2 not now"));
    let mut world = World::seed(81)
        .plans("[[plan]]\nname = \"slow\"\nstages = [10, 20, 40]\nhours = 8\n")
        .settings(climb)
        .provider(BIG, Script::accepts_all())
        .provider(SLOW, Script::accepts_all().with(refused));
    world.live(2 * HOUR, |day| async move {
        for n in 0..20 {
            day.submit(n, &[&format!("user{n}@{BIG}"), &format!("user{n}@{SLOW}")]).await;
        }
        tokio::time::sleep(Duration::from_secs(600)).await;
        let (document, desk) = (document(), day.desk());
        let climbs = hold(&document, ("get", "/v1/warmup"), &desk.warmup().await.unwrap());
        let pacing = &climbs["climbs"][0]["pacing"];
        assert!(pacing["hourly"] == 2 && pacing["by_now"].as_u64() >= pacing["used"].as_u64(), "{climbs}");
        let climb = desk.climb("ip-a", "other", ClimbFilter::default()).await.unwrap();
        hold(&document, ("get", "/v1/warmup/{source}/{provider}"), &climb);
        let wish = WarmupWish { why: "a try".to_owned(), recipients: Some(7), ..WarmupWish::default() };
        let pinned = desk.steer_climb(("ip-a", "other"), ClimbVerb::Pin, wish, "op").await.unwrap();
        hold(&document, ("post", "/v1/warmup/{source}/{provider}/{verb}"), &pinned);
        let steps = hold(&document, ("get", "/v1/warmup/steps"), &desk.climb_steps(StepFilter::default()).await.unwrap());
        assert!(steps.as_array().is_some_and(|steps| !steps.is_empty()), "{steps}");

        let page = desk.actions(ActionFilter::default()).await.unwrap();
        hold(&document, ("get", "/v1/actions"), &page);
        let id = page.actions.first().unwrap_or_else(|| panic!("nothing was done: nothing is tested")).id;
        let shown = hold(&document, ("get", "/v1/actions/{id}"), &desk.action(id).await.unwrap());
        assert!(shown["action"].is_object() && shown["events"][0].is_object(), "{shown}");
        let longer = ActionWish { why: "a try".to_owned(), lasts: Some("1h".to_owned()) };
        hold(&document, ("post", "/v1/actions/{id}/extend"), &desk.prolong_action(id, longer, "op").await.unwrap());

        let sites = desk.sites(SitesFilter::default()).await.unwrap();
        hold(&document, ("get", "/v1/sites"), &sites);
        let site = |host: &str| sites.sites.iter().find(|it| it.site == host).unwrap_or_else(|| panic!("{host}: {sites:?}"));
        let (big, slow) = (site("mx.big.example"), site("mx.slow.example"));
        assert_eq!((slow.domain.as_deref(), slow.queued, slow.delivered), (Some(SLOW), 20, 0));
        assert!(slow.deferred > 0 && slow.suspended_until.is_some(), "{slow:?}");
        assert!(big.delivered > 0 && big.deferred == 0 && big.sources[0].source == "ip-a", "{big:?}");
        hold(&document, ("get", "/v1/sites/{site}"), &desk.site("mx.slow.example").await.unwrap());
        let found = |find: &str, after, limit| SitesFilter { find: Some(find.to_owned()), after, limit };
        let names = |page: &mta::control::api::SitesPage| page.sites.iter().map(|it| it.site.clone()).collect::<Vec<_>>();
        let only = desk.sites(found("SLOW", None, None)).await.unwrap();
        assert_eq!((names(&only), only.next), (vec!["mx.slow.example".to_owned()], None));
        let first = desk.sites(found("", None, Some(1))).await.unwrap();
        let second = desk.sites(found("", first.next, Some(1))).await.unwrap();
        assert_eq!((first.sites.len(), second.sites.len()), (1, 1));
        assert_ne!(names(&first), names(&second));

        hold(&document, ("get", "/v1/where/{domain}"), &desk.whereabouts(SLOW).await.unwrap());
        let queue =
            desk.queue(QueueFilter { domain: Some(SLOW.to_owned()), limit: Some(10), ..QueueFilter::default() }).await.unwrap();
        hold(&document, ("get", "/v1/queue"), &queue);
        let why = hold(&document, ("get", "/v1/why/{id}"), &desk.why(&queue.deliveries[0].id).await.unwrap());
        assert!(why["dialogues"].is_array(), "{why}");
        hold(&document, ("get", "/v1/sources/health"), &desk.source_health().await.unwrap());
        hold(&document, ("get", "/v1/sources"), &desk.sources().await.unwrap());
        hold(&document, ("get", "/v1/events"), &desk.events(EventFilter::default()).await.unwrap());
        hold(&document, ("get", "/v1/overview"), &desk.overview().await.unwrap());
    });
}
