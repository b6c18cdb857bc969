//! What the settings come to, value by value, with whose word each is: what `tradewind config check --diff` compares.
//!
//! Not here: what is compared with what (`cli/src/show_diff.rs`).

use std::collections::BTreeMap;

use scheduler::warmup::{Assignment, Days, Plan, Troubles};
use scheduler::{From, Lane, Place};

use super::shaping::SHIPPED_LAYER;
use super::{Config, warmup};
use crate::control::api::ShapingRow;
use crate::egress::replies::Listed;

/// What holds, value by value, sorted: rules of shaping with the last word on each, lists of providers, pools, sources; what replies
/// speak of and what is done about it; plans that are followed, and who follows them.
pub fn effective(config: &Config) -> Vec<ShapingRow> {
    let mut rows: BTreeMap<(String, String), (String, String)> = BTreeMap::new();
    let mut put = |of: String, key: &str, value: String, by: &str| rows.insert((of, key.to_owned()), (value, by.to_owned()));
    // In the order of layers, so that the last one stays.
    for rule in &config.shaped.shaping.rules {
        let place = match &rule.place {
            Place::Everywhere => "everywhere".to_owned(),
            Place::Provider(name) => format!("provider {name}"),
            Place::Site(name) => format!("site {name}"),
            Place::Domain(name) => format!("domain {name}"),
        };
        let of = match &rule.from {
            From::Any => place,
            From::Pool(name) => format!("{place} from pool {name}"),
            From::Source(name) => format!("{place} from source {name}"),
        };
        for (knob, set) in &rule.sets {
            put(of.clone(), knob.name(), set.value.to_string(), &set.by);
        }
    }
    let by = "mta.toml";
    for (name, hosts) in config.shaped.providers.lists() {
        put(format!("provider {name}"), "mx", hosts, "providers");
    }
    for source in &config.source {
        put(format!("source {}", source.name), "address", source.address.to_string(), by);
        put(format!("source {}", source.name), "ehlo", source.ehlo.clone(), by);
    }
    for pool in &config.pool {
        put(format!("pool {}", pool.name), "sources", pool.sources.join(" "), by);
        if let Some(weights) = &pool.weights {
            let weights: Vec<_> = weights.iter().map(u32::to_string).collect();
            put(format!("pool {}", pool.name), "weights", weights.join(" "), by);
        }
    }
    for (class, pool) in config.class.pools() {
        if let Some(pool) = pool {
            put(format!("class {class}"), "pool", pool.clone(), by);
        }
    }
    for Listed { of, by, sets } in config.replies.listed() {
        for (key, value) in sets {
            put(of.clone(), key, value.clone(), by);
        }
    }
    let shipped = warmup::plans(&[], &[]).unwrap_or_default();
    for Assignment { source, provider, plan, start } in config.climbs.iter() {
        let of = format!("climb of {source} with {provider}");
        put(of.clone(), "plan", plan.name.to_string(), by);
        if *start > 0 {
            put(of, "start", first_day(*start), by);
        }
        let origin = if shipped.get(&*plan.name) == Some(plan) { SHIPPED_LAYER } else { "[warmup] files" };
        for (key, value) in of_plan(plan) {
            put(format!("plan {}", plan.name), key, value, origin);
        }
    }
    rows.into_iter().map(|((of, key), (value, by))| ShapingRow { of, key, value, by }).collect()
}

/// A plan, setting by setting. What is not set is left out.
fn of_plan(plan: &Plan) -> Vec<(&'static str, String)> {
    let numbers = |list: Vec<u64>| list.iter().map(u64::to_string).collect::<Vec<_>>().join(" ");
    let share = |thousandths: u32| format!("{}", f64::from(thousandths) / 1000.0);
    let mut rows = vec![
        ("stages", numbers(plan.stages.list())),
        ("hours", plan.pace.hours.to_string()),
        ("burst", plan.pace.burst.to_string()),
        ("zone", plan.zone.name().to_string()),
        ("days", if plan.days == Days::Sending { "sending" } else { "calendar" }.to_owned()),
        ("sample", plan.sample.to_string()),
        ("regress_stages", plan.regress_stages.to_string()),
        ("cool_days", plan.cool_days.to_string()),
        ("oversend_otp", plan.oversend_otp.to_string()),
        ("first", Lane::ALL.into_iter().filter(|lane| plan.is_first(*lane)).map(Lane::as_str).collect::<Vec<_>>().join(" ")),
    ];
    if plan.days == Days::Sending {
        rows.push(("utilisation", share(plan.utilisation)));
    }
    let complaints = |hundred_thousandths: u32| format!("{}", f64::from(hundred_thousandths) / 100_000.0);
    rows.push(("complaint_sample", plan.complaint_sample.to_string()));
    rows.extend(plan.hold.complained.map(|at| ("hold_complaints", complaints(at))));
    rows.extend(plan.regress.complained.map(|at| ("regress_complaints", complaints(at))));
    let troubles = |keys: [&'static str; 3], Troubles { deferred, refused, unknown, complained: _ }: Troubles| {
        keys.into_iter().zip([deferred, refused, unknown]).filter_map(|(key, at)| Some((key, share(at?)))).collect::<Vec<_>>()
    };
    rows.extend(troubles(["hold_deferred", "hold_refused", "hold_unknown"], plan.hold));
    rows.extend(troubles(["regress_deferred", "regress_refused", "regress_unknown"], plan.regress));
    if !plan.codes.is_empty() {
        rows.push(("codes", plan.codes.join(" ")));
    }
    rows.extend(plan.overflow_pool.as_ref().map(|pool| ("overflow_pool", pool.to_string())));
    if let Some(idle) = plan.idle {
        rows.extend([("idle_days", idle.after_days.to_string()), ("cold_days", idle.cold_days.to_string())]);
    }
    rows
}

fn first_day(since_1970: u32) -> String {
    let day = jiff::civil::Date::constant(1970, 1, 1).checked_add(jiff::Span::new().days(i64::from(since_1970)));
    day.map_or_else(|_| since_1970.to_string(), |day| day.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"hostname = "relay.example.test"
data_dir = "data"
[[listen]]
address = "127.0.0.1:2525"
role = "relay"
trusted_networks = ["127.0.0.0/8"]
member = "did:web:host.example.test"
[egress]
replies = "r.toml"
[[source]]
name = "ip-a"
address = "127.0.0.2"
ehlo = "a.relay.example.test"
[[pool]]
name = "default"
sources = ["ip-a"]
[signing]
required = false
[admin]
address = "127.0.0.1:8025"
"#;

    fn effective_of(replies: &str, more: &str) -> Vec<(String, String, String, String)> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("r.toml"), replies).unwrap();
        std::fs::write(
            dir.path().join("plans.toml"),
            "[[plan]]\nname = \"mine\"\nstages = [5, 10]\nhold_refused = 0.02\ncodes = [\"S3150\", \"TSS04\"]\n",
        )
        .unwrap();
        let text = format!("{GOOD}{more}");
        let path = dir.path().join("mta.toml");
        std::fs::write(&path, text).unwrap();
        let config = Config::load(&path).unwrap_or_else(|error| panic!("{error}"));
        let short = dir.path().display().to_string();
        let rows =
            effective(&config).into_iter().map(|row| (row.of, row.key, row.value, row.by.replace(&format!("{short}/"), "")));
        rows.collect()
    }

    fn find<'a>(rows: &'a [(String, String, String, String)], of: &str, key: &str) -> Option<(&'a str, &'a str)> {
        rows.iter().find(|row| row.0 == of && row.1 == key).map(|row| (row.2.as_str(), row.3.as_str()))
    }

    #[test]
    fn entries_and_rules_stand_there_with_their_layer_and_a_replaced_rule_only_once() {
        let file = "[[reply]]\nname = \"theirs\"\nprovider = [\"yahoo\", \"google\"]\ntext = 'slow'\nclass = \"rate\"\n\n\
                    [[rule]]\nname = \"bad mail\"\ndo = \"nothing\"\n\n\
                    [[reply]]\nname = \"second\"\ncode = \"4xx\"\nclass = \"host\"\nverdict = \"defer\"\n";
        let rows = effective_of(file, "");
        assert_eq!(find(&rows, "reply theirs", "provider"), Some(("yahoo google", "r.toml:2")));
        assert_eq!(find(&rows, "reply theirs", "text"), Some(("slow", "r.toml:2")));
        assert_eq!(find(&rows, "reply theirs", "after"), Some(("", "r.toml:2")));
        assert_eq!(find(&rows, "reply second", "after"), Some(("theirs", "r.toml:12")));
        assert_eq!(find(&rows, "reply second", "verdict"), Some(("defer", "r.toml:12")));
        assert_eq!(find(&rows, "rule bad mail", "do"), Some(("nothing", "r.toml:8")));
        assert_eq!(find(&rows, "rule bad mail", "for"), None, "nothing of the shipped one is left");
        assert_eq!(find(&rows, "rule slower", "count"), Some(("5", SHIPPED_LAYER)));
        assert_eq!(find(&rows, "shipped reply google: no TLS", "class"), Some(("tls", SHIPPED_LAYER)));
    }

    #[test]
    fn plans_that_are_followed_stand_there_with_who_follows_them() {
        let climb = "[warmup]\nfiles = [\"plans.toml\"]\n[[climb]]\nsource = \"ip-a\"\nprovider = \"google\"\nplan = \"mine\"\n\
                     start = 2026-01-31\n";
        let rows = effective_of("", climb);
        assert_eq!(find(&rows, "climb of ip-a with google", "plan"), Some(("mine", "mta.toml")));
        assert_eq!(find(&rows, "climb of ip-a with google", "start"), Some(("2026-01-31", "mta.toml")));
        assert_eq!(find(&rows, "plan mine", "stages"), Some(("5 10", "[warmup] files")));
        assert_eq!(find(&rows, "plan mine", "hold_refused"), Some(("0.02", "[warmup] files")));
        assert_eq!(find(&rows, "plan mine", "codes"), Some(("S3150 TSS04", "[warmup] files")));
        assert!(!rows.iter().any(|row| row.0.starts_with("plan ") && row.0 != "plan mine"), "nobody follows the others");
    }
}
