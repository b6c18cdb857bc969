//! Whether several resolvers, which look from different places, agree. Pure.
//!
//! One poisoned cache or one hijacked route must not earn a label, nor take one away: what one resolver says counts only when as
//! many as the quorum say the same. (The web's certificate authorities ask for the same before they issue, "multi-perspective
//! validation", and their quorum is ours: of up to two all, of three to five all but one, of more all but two.)

use crate::judge::{Check, Judgement, Kind, Verdict};

/// How many of `resolvers` have to agree, unless the settings say otherwise.
pub(crate) fn usual(resolvers: usize) -> usize {
    match resolvers {
        0..=2 => resolvers,
        3..=5 => resolvers - 1,
        _ => resolvers - 2,
    }
}

/// One judgement of several, each with the name of its resolver.
pub(crate) fn agree(views: Vec<(String, Judgement)>, quorum: usize) -> Judgement {
    let of = |verdict| views.iter().filter(move |(_, view)| view.verdict == verdict).count();
    let (pass, fail, all) = (of(Verdict::Pass), of(Verdict::Fail), views.len());
    let names = views.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    let reached = if pass >= quorum {
        Verdict::Pass
    } else if fail >= quorum {
        Verdict::Fail
    } else {
        Verdict::Unknown
    };
    let dissent = views.iter().find(|(_, view)| view.verdict != reached && reached != Verdict::Unknown);
    let dissent = dissent.map(|(name, view)| format!("{name} saw otherwise: {}", first_reason(view)));
    let split = views.iter().find(|(_, view)| view.verdict != Verdict::Pass);
    let split = split.map(|(name, view)| format!("{name}: {}", first_reason(view))).unwrap_or_default();
    // The checks of one that saw what is believed; where nothing is, of one that saw trouble, so that the member learns of it.
    let shown = if reached == Verdict::Unknown { split_of(&views) } else { Some(reached) };
    let Some((_, mut judgement)) = views.into_iter().find(|(_, view)| shown.is_none_or(|verdict| view.verdict == verdict)) else {
        return Judgement::only(Check::unknown(Kind::Resolvers, names, "no resolver was asked"));
    };
    judgement.checks.push(match (reached, dissent) {
        (Verdict::Unknown, _) => {
            let why = format!("{pass} of {all} resolvers found all in order, {fail} did not; {quorum} must agree. {split}");
            Check::unknown(Kind::Resolvers, names, why)
        }
        (_, Some(dissent)) => Check::note_of(Kind::Resolvers, names, dissent),
        (_, None) => Check::pass(Kind::Resolvers, names),
    });
    Judgement { verdict: reached, checks: judgement.checks }
}

fn split_of(views: &[(String, Judgement)]) -> Option<Verdict> {
    [Verdict::Fail, Verdict::Unknown].into_iter().find(|verdict| views.iter().any(|(_, view)| view.verdict == *verdict))
}

fn first_reason(view: &Judgement) -> String {
    view.reasons().into_iter().next().unwrap_or_else(|| "all in order".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn views(verdicts: &str) -> Vec<(String, Judgement)> {
        let judgement = |letter| match letter {
            'p' => Judgement::only(Check::pass(Kind::Mx, "a.example")),
            'f' => Judgement::only(Check::fail(Kind::Mx, "a.example", "no MX")),
            _ => Judgement::only(Check::unknown(Kind::Mx, "a.example", "SERVFAIL")),
        };
        verdicts.chars().enumerate().map(|(nth, letter)| (format!("r{nth}"), judgement(letter))).collect()
    }

    #[test]
    fn only_a_quorum_gives_or_takes() {
        use Verdict::{Fail, Pass, Unknown};
        for (verdicts, quorum, expected) in [
            ("p", 1, Pass),
            ("f", 1, Fail),
            ("u", 1, Unknown),
            ("pp", 2, Pass),
            ("pf", 2, Unknown),
            ("pu", 2, Unknown),
            ("ff", 2, Fail),
            ("fu", 2, Unknown),
            ("ppf", 2, Pass),
            ("ppu", 2, Pass),
            ("pff", 2, Fail),
            ("puf", 2, Unknown),
            ("ffu", 2, Fail),
            ("uuu", 2, Unknown),
            ("pppff", 4, Unknown),
            ("ppppf", 4, Pass),
        ] {
            let judgement = agree(views(verdicts), quorum);
            assert_eq!(judgement.verdict, expected, "{verdicts} of {quorum}");
            let said = judgement.checks.last().unwrap();
            assert_eq!(said.kind, Kind::Resolvers);
            let differ = verdicts.chars().any(|letter| letter != verdicts.chars().next().unwrap());
            assert!(!differ || said.why.is_some(), "{verdicts}: a dissent is said");
            assert_eq!(judgement.reasons().is_empty(), expected == Pass, "{verdicts}: {:?}", judgement.reasons());
        }
    }

    #[test]
    fn the_usual_quorum_is_that_of_certificate_authorities() {
        let table: Vec<usize> = (1..=7).map(usual).collect();
        assert_eq!(table, [1, 2, 2, 3, 4, 4, 5]);
    }
}
