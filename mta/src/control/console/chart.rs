//! A climb drawn: each day what was sent as a bar, what the plan wanted and what was allowed as lines of different dashes.
//! The table beside it says the same in figures.

use maud::{Markup, html};

use super::parts::count;
use crate::control::api::{ClimbDay, HourRow};

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 28.0;
/// Where the largest is more than so many times the smallest, the axis counts in powers of ten.
const SPREAD: f64 = 200.0;

struct Scale {
    most: f64,
    least: f64,
    powers: bool,
}

impl Scale {
    fn of(values: impl Iterator<Item = u64> + Clone) -> Scale {
        let most = nice(values.clone().max().unwrap_or(0).max(1) as f64);
        let least = values.filter(|value| *value > 0).min().unwrap_or(1) as f64;
        Scale { most, least: 10f64.powf(least.log10().floor()), powers: most / least > SPREAD }
    }

    fn y(&self, value: u64) -> f64 {
        let share = match self.powers {
            false => value as f64 / self.most,
            true if (value as f64) < self.least => 0.0,
            true => (value as f64 / self.least).ln() / (self.most / self.least).ln(),
        };
        TOP + (1.0 - share.clamp(0.0, 1.0)) * (HEIGHT - TOP - BOTTOM)
    }

    fn ticks(&self) -> Vec<u64> {
        if !self.powers {
            return (0..=4).map(|quarter| (self.most * f64::from(quarter) / 4.0) as u64).collect();
        }
        let mut tick = self.least;
        let mut ticks = Vec::new();
        while tick <= self.most && ticks.len() < 12 {
            ticks.push(tick as u64);
            tick *= 10.0;
        }
        ticks
    }
}

/// The next of 1, 2, 4, 5 and 10 times a power of ten: a quarter of it is round too.
fn nice(most: f64) -> f64 {
    let power = 10f64.powf(most.log10().floor());
    [1.0, 2.0, 4.0, 5.0, 10.0].into_iter().map(|times| times * power).find(|round| *round >= most).unwrap_or(most)
}

/// The days of a climb.
pub(super) fn days(days: &[ClimbDay]) -> Markup {
    if days.is_empty() {
        return html! { p.quiet { "No day is over yet." } };
    }
    let scale = Scale::of(days.iter().flat_map(|day| [Some(day.spent), day.planned, day.allowed]).flatten());
    let step = (WIDTH - LEFT - RIGHT) / days.len() as f64;
    let x = |at: usize| LEFT + step * at as f64;
    let line = |of: fn(&ClimbDay) -> Option<u64>| stairs(days.iter().map(of), &scale, step);
    let every = days.len().div_ceil(9);
    let floor = HEIGHT - BOTTOM;
    html! {
        svg.chart viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-labelledby="chart-title" {
            title #chart-title { "Recipients a day over " (days.len()) " days: accepted, allowed and planned" }
            @for tick in scale.ticks() {
                line.grid x1=(LEFT) x2=(WIDTH - RIGHT) y1=(place(scale.y(tick))) y2=(place(scale.y(tick))) {}
                text x=(LEFT - 6.0) y=(place(scale.y(tick) + 4.0)) text-anchor="end" { (count(tick)) }
            }
            @for (at, day) in days.iter().enumerate() {
                rect.fact x=(place(x(at) + step * 0.15)) width=(place(step * 0.7)) y=(place(scale.y(day.spent))) height=(place(floor - scale.y(day.spent))) {
                    title { (day.day) ": accepted " (count(day.spent)) }
                }
                @if at % every == 0 {
                    text x=(place(x(at) + step / 2.0)) y=(HEIGHT - 8.0) text-anchor="middle" { (day.day.get(5..).unwrap_or(&day.day)) }
                }
            }
            path.plan d=(line(|day| day.planned)) {}
            path.allowed d=(line(|day| day.allowed)) {}
        }
        p.quiet { "Bars: accepted. Dashed line: what the plan wanted had every day been used. Full line: what was allowed."
            @if scale.powers { " The axis counts in powers of ten." } }
    }
}

/// A day's hours: what was accepted as a line, what was delivered as bars, with what was deferred and failed in the tip of each.
pub(super) fn hours(hours: &[HourRow]) -> Markup {
    if hours.is_empty() {
        return html! { p.quiet { "Nothing is counted yet." } };
    }
    let scale = Scale::of(hours.iter().flat_map(|hour| [hour.counts.accepted, hour.counts.delivered]));
    let step = (WIDTH - LEFT - RIGHT) / hours.len() as f64;
    let floor = HEIGHT - BOTTOM;
    html! {
        svg.chart viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-labelledby="hours-title" {
            title #hours-title { "Recipients an hour: delivered and accepted" }
            @for tick in scale.ticks() {
                line.grid x1=(LEFT) x2=(WIDTH - RIGHT) y1=(place(scale.y(tick))) y2=(place(scale.y(tick))) {}
                text x=(LEFT - 6.0) y=(place(scale.y(tick) + 4.0)) text-anchor="end" { (count(tick)) }
            }
            @for (at, hour) in hours.iter().enumerate() {
                @let (x, counts) = (LEFT + step * at as f64, &hour.counts);
                rect.fact x=(place(x + step * 0.15)) width=(place(step * 0.7)) y=(place(scale.y(counts.delivered))) height=(place(floor - scale.y(counts.delivered))) {
                    title { (hour.at) ": accepted " (count(counts.accepted)) ", delivered " (count(counts.delivered)) ", deferred " (count(counts.deferred)) ", failed " (count(counts.failed)) }
                }
                @if at % 3 == 0 { text x=(place(x + step / 2.0)) y=(HEIGHT - 8.0) text-anchor="middle" { (hour.at.get(11..16).unwrap_or("")) } }
            }
            path.allowed d=(stairs(hours.iter().map(|hour| Some(hour.counts.accepted)), &scale, step)) {}
        }
        p.quiet { "Bars: delivered. Line: accepted. Times are UTC." @if scale.powers { " The axis counts in powers of ten." } }
    }
}

/// A line that keeps its height for a day; it is broken where there is no value.
fn stairs(values: impl Iterator<Item = Option<u64>>, scale: &Scale, step: f64) -> String {
    let mut path = String::new();
    let mut drawing = false;
    for (at, value) in values.enumerate() {
        let Some(value) = value else {
            drawing = false;
            continue;
        };
        let (from, y) = (LEFT + step * at as f64, place(scale.y(value)));
        path.push_str(&format!("{}{} {y}L{} {y}", if drawing { "L" } else { "M" }, place(from), place(from + step)));
        drawing = true;
    }
    path
}

/// To a tenth: more is only octets.
fn place(value: f64) -> String {
    format!("{value:.1}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(spent: u64, planned: Option<u64>) -> ClimbDay {
        ClimbDay { day: "2026-11-01".to_owned(), spent, planned, ..ClimbDay::default() }
    }

    #[test]
    fn everything_stays_inside_of_the_frame() {
        let drawn = days(&[day(0, Some(200)), day(190, None), day(9_000_000, Some(10_000_000))]).into_string();
        let numbers = drawn.split(['"', ' ', 'M', 'L']).filter_map(|word| word.parse::<f64>().ok());
        assert!(numbers.clone().count() > 20);
        for number in numbers {
            assert!((0.0..=WIDTH).contains(&number), "{number} in {drawn}");
        }
    }

    #[test]
    fn a_line_is_broken_where_nothing_was_planned() {
        let scale = Scale::of([100].into_iter());
        let path = stairs([Some(100), None, Some(50)].into_iter(), &scale, 10.0);
        assert_eq!(path.matches('M').count(), 2);
    }

    #[test]
    fn the_axis_ends_at_a_round_number() {
        assert_eq!([1.0, 7.0, 130.0, 450.0, 1_000.0].map(nice), [1.0, 10.0, 200.0, 500.0, 1_000.0]);
    }
}
