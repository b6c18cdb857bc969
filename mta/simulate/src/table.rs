//! Reports as text: one with everything, or two side by side.

use crate::report::{Day, Report};

/// A table of one trial, or of two beside each other, with what follows from them below.
pub fn table(reports: &[Report]) -> String {
    let mut text = match reports {
        [one] => single(one),
        many => beside(many),
    };
    for report in reports {
        text.push('\n');
        text.push_str(&summary(report));
    }
    if let [first, second] = reports {
        text.push_str(&compared(first, second));
    }
    text
}

/// What plans deliver before strict receivers, by the limit that these begin with; of two, how many times as much the first.
pub fn range_table(range: &[(u64, Vec<Report>)]) -> String {
    let plans: Vec<&str> = range.first().map_or(&[][..], |(_, reports)| reports).iter().map(|it| it.plan.as_str()).collect();
    let letter = |nth: usize| char::from(b'A' + nth as u8);
    let mut heads = vec!["first limit".to_owned()];
    heads.extend((0..plans.len()).flat_map(|nth| ["sent", "deferred", "expired"].map(|head| format!("{} {head}", letter(nth)))));
    if plans.len() == 2 {
        heads.push("A/B sent".to_owned());
    }
    let rows = range.iter().map(|(limit, reports)| {
        let sent = |nth: usize| reports.get(nth).map_or(0, |report| report.total(|day| day.sent));
        let mut row = vec![grouped(*limit)];
        for report in reports {
            let totals = [report.total(|day| day.sent), report.total(|day| day.deferred), report.total(|day| day.expired)];
            row.extend(totals.map(grouped));
        }
        if reports.len() == 2 {
            row.push(format!("{:.2}", sent(0) as f64 / sent(1).max(1) as f64));
        }
        row
    });
    let names: Vec<String> = plans.iter().enumerate().map(|(nth, plan)| format!("{} = {plan}", letter(nth))).collect();
    let columns = heads.len();
    format!(
        "{}; strict receivers that take so many messages on the first day\n\n{}",
        names.join(", "),
        aligned(&heads, rows, columns)
    )
}

fn single(report: &Report) -> String {
    let heads = ["day", "allowance", "sent", "deferred", "refused", "expired", "waiting", "state", "decision"];
    let rows = report.days.iter().map(|it| {
        let numbers = [it.sent, it.deferred, it.refused, it.expired, it.waiting].map(grouped);
        let mut row = vec![it.day.to_string(), allowance(it)];
        row.extend(numbers);
        row.extend([it.state.clone(), it.decision.clone()]);
        row
    });
    aligned(&heads.map(str::to_owned), rows, 7)
}

fn beside(reports: &[Report]) -> String {
    let mut heads = vec!["day".to_owned()];
    for nth in 0..reports.len() {
        let letter = char::from(b'A' + nth as u8);
        heads.extend(["allowance", "sent", "deferred", "waiting"].map(|head| format!("{letter} {head}")));
    }
    heads.extend((0..reports.len()).map(|nth| format!("{} state", char::from(b'A' + nth as u8))));
    let most = reports.iter().map(|report| report.days.len()).max().unwrap_or(0);
    let rows = (0..most).map(|nth| {
        let mut row = vec![(nth + 1).to_string()];
        let days = || reports.iter().map(|report| report.days.get(nth));
        for day in days() {
            row.extend(match day {
                Some(it) => vec![allowance(it), grouped(it.sent), grouped(it.deferred), grouped(it.waiting)],
                None => vec![String::new(); 4],
            });
        }
        row.extend(days().map(|day| day.map(|it| it.state.clone()).unwrap_or_default()));
        row
    });
    let numbers = 1 + 4 * reports.len();
    let names = reports.iter().enumerate().map(|(nth, it)| format!("{} = {}", char::from(b'A' + nth as u8), it.plan));
    format!("{}\n\n{}", names.collect::<Vec<_>>().join(", "), aligned(&heads, rows, numbers))
}

fn summary(report: &Report) -> String {
    let (sent, deferred) = (report.total(|day| day.sent), report.total(|day| day.deferred));
    let tries = (sent + deferred + report.total(|day| day.refused)).max(1);
    let mut text = format!(
        "{}: {} sent of {} in {} days, {} deferred ({:.1} % of tries), {} refused, {} expired; {}\n",
        report.plan,
        grouped(sent),
        grouped(report.total(|day| day.arrived)),
        report.days.len(),
        grouped(deferred),
        100.0 * deferred as f64 / tries as f64,
        grouped(report.total(|day| day.refused)),
        grouped(report.total(|day| day.expired)),
        match report.finished {
            Some(day) => format!("warm on day {day}"),
            None => "not warm by then".to_owned(),
        }
    );
    if report.grain > 1 {
        text.push_str(&format!(
            "  deliveries of the simulation have up to {} recipients; allowances are kept to the last one, times of day are coarser, and\n  \
             what strict receivers punish is another matter: ask again with --exact\n",
            report.grain
        ));
    }
    for line in &report.outlook {
        text.push_str(&format!("  {line}\n"));
    }
    text
}

fn compared(first: &Report, second: &Report) -> String {
    let sent = |report: &Report| report.total(|day| day.sent);
    let deferred = |report: &Report| report.total(|day| day.deferred);
    let (more, less) = if sent(first) >= sent(second) { (first, second) } else { (second, first) };
    let times = |a: u64, b: u64| a as f64 / b.max(1) as f64;
    format!(
        "\n{} delivers {:.2} times what {} does, with {:.2} times its deferrals\n",
        more.plan,
        times(sent(more), sent(less)),
        less.plan,
        times(deferred(more), deferred(less))
    )
}

fn allowance(day: &Day) -> String {
    day.allowance.map_or_else(|| "no bound".to_owned(), grouped)
}

/// `1 234 567`: so that it can be read at a glance, and is no decimal point to anybody.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (nth, digit) in digits.chars().enumerate() {
        if nth > 0 && (digits.len() - nth).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// The first `numbers` columns stand right, the others left.
fn aligned(heads: &[String], rows: impl Iterator<Item = Vec<String>>, numbers: usize) -> String {
    let rows: Vec<Vec<String>> = std::iter::once(heads.to_vec()).chain(rows).collect();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..heads.len()).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let gap = if column == 0 { "" } else { "  " };
            line += &if column < numbers { format!("{gap}{cell:>width$}") } else { format!("{gap}{cell:<width$}") };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(plan: &str, sent: u64) -> Report {
        let day = |day| Day {
            day,
            allowance: (day < 3).then_some(200 * u64::from(day)),
            sent: sent * u64::from(day),
            deferred: 7,
            waiting: 1_234_567,
            state: if day < 3 { "warming".into() } else { "warm".into() },
            decision: "advance: used 97 % of 200".into(),
            ..Day::default()
        };
        let outlook = vec!["this volume keeps one source warm".into()];
        Report { plan: plan.into(), days: (1..4).map(day).collect(), finished: Some(3), grain: 40, outlook }
    }

    #[test]
    fn one_trial_is_a_table_with_a_row_for_each_day_and_its_reasons() {
        let text = table(&[report("gentle", 100)]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "day  allowance  sent  deferred  refused  expired    waiting  state    decision");
        assert_eq!(lines[1], "  1        200   100         7        0        0  1 234 567  warming  advance: used 97 % of 200");
        assert_eq!(lines[3].split_whitespace().nth(1), Some("no"), "{}", lines[3]);
        assert!(text.contains("gentle: 600 sent of 0 in 3 days, 21 deferred (3.4 % of tries)"), "{text}");
        assert!(text.contains("warm on day 3") && text.contains("up to 40 recipients"), "{text}");
        assert!(text.contains("  this volume keeps one source warm\n"), "{text}");
    }

    #[test]
    fn two_trials_stand_side_by_side_and_are_compared() {
        let text = table(&[report("gentle", 100), report("bold", 50)]);
        assert!(text.starts_with("A = gentle, B = bold\n\nday  A allowance  A sent"), "{text}");
        assert!(text.contains("gentle delivers 2.00 times what bold does, with 1.00 times its deferrals"), "{text}");
    }

    #[test]
    fn a_range_has_a_row_for_each_limit_and_says_how_many_times_as_much() {
        let range = vec![
            (100, vec![report("gentle", 100), report("bold", 50)]),
            (1_000, vec![report("gentle", 100), report("bold", 200)]),
        ];
        let text = range_table(&range);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("A = gentle, B = bold"), "{text}");
        assert!(lines[3].ends_with("2.00") && lines[4].ends_with("0.50") && lines[4].contains("1 000"), "{text}");
    }

    #[test]
    fn numbers_are_grouped_by_three() {
        let texts = [0, 999, 1_000, 65_536, 1_000_000].map(grouped);
        assert_eq!(texts, ["0", "999", "1 000", "65 536", "1 000 000"]);
    }
}
