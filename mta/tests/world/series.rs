//! What is counted: its series are those of the configuration, however many sites mail goes to.

use std::collections::BTreeSet;

use loadtest::sink::{Act, Rule, Script, Stage};
use mta::control::metrics::{Sizes, builder, describe, series_max};

use super::HOUR;
use super::parts::World;

const SITES: u64 = 1000;
/// Every kind of outcome is among the first of them.
const FEW: u64 = 10;

#[test]
fn a_thousand_sites_add_no_series() {
    let recorder = builder().unwrap().build_recorder();
    let handle = recorder.handle();
    // The world runs on this thread, and so is all that it counts.
    let _guard = metrics::set_default_local_recorder(&recorder);
    describe();
    let series = || -> BTreeSet<String> {
        let shown = handle.render();
        let lines = shown.lines().filter(|line| line.starts_with("mta_"));
        lines.filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect()
    };
    let later = Rule::new(Stage::Rcpt, Act::reply("451 4.3.0 try again")).to("later@").first_of_each(1);
    let mut world = World::seed(91)
        .provider("big.example", Script::accepts_all().refuses("nobody@").with(later))
        .provider("member.example", Script::accepts_all());
    let (zone, big) = (world.zone(), world.provider_of("big.example"));
    for n in 0..SITES {
        // A site is a set of names of hosts (ARCHITECTURE, Words); where they lead does not matter.
        let host = format!("mx.s{n}.example");
        zone.mx(&format!("s{n}.example"), 10, &host).address(&host, "198.51.100.1".parse().unwrap());
    }
    let (mut few, mut many) = (BTreeSet::new(), BTreeSet::new());
    world.live(2 * HOUR, |day| {
        let (few, many) = (&mut few, &mut many);
        async move {
            for n in 0..SITES {
                if n == FEW {
                    tokio::time::sleep(HOUR).await;
                    *few = series();
                }
                let whom = ["someone", "someone", "nobody", "later"][n as usize % 4];
                day.submit(n, &[&format!("{whom}@s{n}.example")]).await;
            }
            tokio::time::sleep(HOUR).await;
            *many = series();
        }
    });
    assert_eq!(big.messages().len() as u64, SITES - SITES / 4, "one to each site, but for those whose recipient is refused");
    assert_eq!(many, few);
    let sizes = Sizes { sources: 1, providers: 33, zones: 0, climbs: 0 };
    assert!((20..=series_max(sizes)).contains(&many.len()), "{} of {}", many.len(), series_max(sizes));
    assert!(!many.iter().any(|series| series.contains(".example")), "{many:?}");
}
