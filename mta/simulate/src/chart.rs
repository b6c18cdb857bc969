//! Plan against fact as a drawing (SVG 1.1): lines, axes, a legend, and nothing that runs or is fetched.
//!
//! It can be read without colours: plans are broad and pale, what was sent lies upon them, and each trial has marks of its own
//! (circles, squares), which the legend repeats. The vertical axis is logarithmic where the largest value is a hundred times
//! the smallest, because a climb that doubles is a straight line there. Colours are Okabe and Ito's, told apart by most eyes.

use std::fmt::Write;

use crate::report::Report;
use crate::table::grouped;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 520.0;
const LEFT: f64 = 110.0;
const RIGHT: f64 = 30.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 110.0;

/// Sent, allowed, deferred: of each trial.
const COLOURS: [[&str; 3]; 2] = [["#0072b2", "#b3d9f2", "#d55e00"], ["#009e73", "#cccccc", "#cc79a7"]];

/// Of a plan, and of what was sent.
const BROAD: f64 = 8.0;
const THIN: f64 = 2.0;

/// One line of the drawing.
struct Line {
    label: String,
    colour: &'static str,
    dash: &'static str,
    width: f64,
    mark: Mark,
    points: Vec<(f64, f64)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    None,
    Circle,
    Square,
    Cross,
    Plus,
}

/// The drawing of one trial or two, under a heading.
pub fn chart(heading: &str, reports: &[Report]) -> String {
    let lines = lines(reports);
    let days = reports.iter().map(|report| report.days.len()).max().unwrap_or(1).max(2) as f64;
    let step = if days > 100.0 {
        30
    } else if days > 20.0 {
        5
    } else {
        1
    };
    let ticks = (1..=days as u32).filter(|day| *day == 1 || day.is_multiple_of(step));
    let ticks = ticks.map(|day| (f64::from(day), day.to_string())).collect();
    drawing(heading, &described(reports), &lines, &Across { from: 1.0, to: days, ticks, title: "day" }, "messages a day")
}

/// What two plans deliver before strict receivers, by the limit that these begin with.
pub fn range_chart(heading: &str, range: &[(u64, Vec<Report>)]) -> String {
    let plans = range.first().map_or(0, |(_, reports)| reports.len());
    let mut lines = Vec::new();
    for nth in 0..plans {
        let [sent, _, deferred] = COLOURS[nth % 2];
        let marks = if nth % 2 == 0 { [Mark::Circle, Mark::Cross] } else { [Mark::Square, Mark::Plus] };
        let points = |of: &dyn Fn(&crate::report::Day) -> u64| {
            let point =
                |(limit, reports): &(u64, Vec<Report>)| Some(((*limit as f64).log10(), reports.get(nth)?.total(of) as f64));
            range.iter().filter_map(point).filter(|(_, total)| *total > 0.0).collect::<Vec<_>>()
        };
        let plan = range.first().and_then(|(_, reports)| reports.get(nth)).map_or("", |report| &report.plan);
        let line = |what: &str, colour, dash, mark, points| Line {
            label: format!("{plan}: {what}"),
            colour,
            dash,
            width: THIN,
            mark,
            points,
        };
        lines.push(line("sent", sent, "", marks[0], points(&|day| day.sent)));
        lines.push(line("deferred", deferred, "1 5", marks[1], points(&|day| day.deferred)));
    }
    lines.retain(|line| !line.points.is_empty());
    let log = |limit: Option<&(u64, Vec<Report>)>| limit.map_or(0.0, |(limit, _)| (*limit as f64).log10());
    let (from, to) = (log(range.first()), log(range.last()));
    let ticks = range.iter().map(|(limit, _)| ((*limit as f64).log10(), grouped(*limit))).collect();
    let across =
        Across { from, to: to.max(from + 0.1), ticks, title: "messages a day that the receiver takes at first (logarithmic)" };
    let what: Vec<String> =
        range.iter().map(|(limit, reports)| format!("from {}: {}", grouped(*limit), described(reports))).collect();
    drawing(heading, &what.join(". "), &lines, &across, "messages in all")
}

/// The horizontal axis.
struct Across {
    from: f64,
    to: f64,
    ticks: Vec<(f64, String)>,
    title: &'static str,
}

fn drawing(heading: &str, description: &str, lines: &[Line], across: &Across, unit: &str) -> String {
    let scale = Scale::of(lines);
    let x = |at: f64| LEFT + (at - across.from) / (across.to - across.from) * (WIDTH - LEFT - RIGHT);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"13\" role=\"img\">\n<title>{0}</title>\n<desc>{1}</desc>\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n\
         <text x=\"{LEFT}\" y=\"28\" font-size=\"17\">{0}</text>\n",
        escaped(heading),
        escaped(description),
    );
    axes(&mut svg, &scale, across, unit, x);
    for line in lines {
        draw(&mut svg, line, &scale, x);
    }
    legend(&mut svg, lines);
    svg.push_str("</svg>\n");
    svg
}

fn described(reports: &[Report]) -> String {
    let one = |report: &Report| {
        format!("{}: {} messages sent in {} days", report.plan, grouped(report.total(|day| day.sent)), report.days.len())
    };
    reports.iter().map(one).collect::<Vec<_>>().join("; ")
}

fn lines(reports: &[Report]) -> Vec<Line> {
    let mut lines = Vec::new();
    for (nth, report) in reports.iter().enumerate() {
        let [sent, allowed, deferred] = COLOURS[nth % 2];
        let points = |of: &dyn Fn(&crate::report::Day) -> Option<u64>| {
            let day = |day: &crate::report::Day| Some((f64::from(day.day), of(day)? as f64)).filter(|(_, value)| *value > 0.0);
            report.days.iter().filter_map(day).collect::<Vec<_>>()
        };
        let marks = if nth % 2 == 0 { [Mark::Circle, Mark::Cross] } else { [Mark::Square, Mark::Plus] };
        let mut add = |what: &str, colour, (dash, width), mark, points: Vec<(f64, f64)>| {
            if !points.is_empty() {
                lines.push(Line { label: format!("{}: {what}", report.plan), colour, dash, width, mark, points });
            }
        };
        add("plan", allowed, ("", BROAD), Mark::None, points(&|day| day.allowance));
        add("sent", sent, ("", THIN), marks[0], points(&|day| Some(day.sent)));
        add("deferred", deferred, ("1 5", THIN), marks[1], points(&|day| Some(day.deferred)));
    }
    // Plans lie below.
    lines.sort_by_key(|line| line.width == THIN);
    lines
}

/// The vertical axis.
struct Scale {
    least: f64,
    most: f64,
    logarithmic: bool,
}

impl Scale {
    fn of(lines: &[Line]) -> Scale {
        let values = || lines.iter().flat_map(|line| &line.points).map(|(_, value)| *value);
        let (least, most) = (values().fold(f64::INFINITY, f64::min), values().fold(1.0, f64::max));
        let least = if least.is_finite() { least } else { 1.0 };
        if most / least >= 100.0 {
            let round = |value: f64| 10f64.powf(value);
            Scale { least: round(least.log10().floor()), most: round(most.log10().ceil()), logarithmic: true }
        } else {
            Scale { least: 0.0, most: nice(most), logarithmic: false }
        }
    }

    fn y(&self, value: f64) -> f64 {
        let share = if self.logarithmic {
            (value.max(self.least) / self.least).log10() / (self.most / self.least).log10().max(1e-9)
        } else {
            value / self.most
        };
        HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
    }

    fn ticks(&self) -> Vec<f64> {
        if !self.logarithmic {
            return (0..=5).map(|nth| self.most * f64::from(nth) / 5.0).collect();
        }
        let decades = (self.most / self.least).log10().round() as i32;
        (0..=decades).map(|decade| self.least * 10f64.powi(decade)).collect()
    }
}

/// The next of 1, 2, 5, 10, …: its fifths are whole numbers from 5 on.
fn nice(most: f64) -> f64 {
    let decade = 10f64.powf(most.max(5.0).log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|step| step * decade).find(|value| *value >= most).unwrap_or(most)
}

fn axes(svg: &mut String, scale: &Scale, across: &Across, unit: &str, x: impl Fn(f64) -> f64) {
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    for value in scale.ticks() {
        let (y, label) = (scale.y(value), grouped(value.round() as u64));
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\" stroke=\"#dddddd\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            LEFT - 8.0,
            y + 4.0
        );
    }
    for (at, label) in &across.ticks {
        let at = x(*at);
        let _ = writeln!(
            svg,
            "<line x1=\"{at:.1}\" y1=\"{bottom}\" x2=\"{at:.1}\" y2=\"{}\" stroke=\"#000000\"/>\n\
             <text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
            bottom + 5.0,
            bottom + 20.0
        );
    }
    let kind = if scale.logarithmic { format!("{unit} (logarithmic)") } else { unit.to_owned() };
    let title = across.title;
    let middle = (TOP + bottom) / 2.0;
    let _ = writeln!(
        svg,
        "<path d=\"M{LEFT} {TOP}V{bottom}H{right}\" fill=\"none\" stroke=\"#000000\"/>\n\
         <text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{title}</text>\n\
         <text x=\"16\" y=\"{middle}\" text-anchor=\"middle\" transform=\"rotate(-90 16 {middle})\">{kind}</text>",
        (LEFT + right) / 2.0,
        bottom + 40.0
    );
}

fn draw(svg: &mut String, line: &Line, scale: &Scale, x: impl Fn(f64) -> f64) {
    let places: Vec<(f64, f64)> = line.points.iter().map(|(day, value)| (x(*day), scale.y(*value))).collect();
    stroke(svg, line, &places);
    // A mark on every day of a long trial would be a thick line.
    let every = places.len().div_ceil(30).max(1);
    for (x, y) in places.iter().step_by(every) {
        mark(svg, line, *x, *y);
    }
}

fn stroke(svg: &mut String, line: &Line, places: &[(f64, f64)]) {
    let points: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let dash = if line.dash.is_empty() { String::new() } else { format!(" stroke-dasharray=\"{}\"", line.dash) };
    let _ = writeln!(
        svg,
        "<polyline fill=\"none\" stroke=\"{}\" stroke-width=\"{}\"{dash} points=\"{}\"/>",
        line.colour,
        line.width,
        points.join(" ")
    );
}

fn mark(svg: &mut String, line: &Line, x: f64, y: f64) {
    let colour = line.colour;
    let _ = match line.mark {
        Mark::None => Ok(()),
        Mark::Circle => writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\"/>"),
        Mark::Square => {
            writeln!(svg, "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"7\" height=\"7\" fill=\"{colour}\"/>", x - 3.5, y - 3.5)
        }
        Mark::Cross => {
            writeln!(svg, "<path d=\"M{:.1} {:.1}l7 7m0 -7l-7 7\" stroke=\"{colour}\" stroke-width=\"1.5\"/>", x - 3.5, y - 3.5)
        }
        Mark::Plus => writeln!(
            svg,
            "<path d=\"M{:.1} {y:.1}h8M{x:.1} {:.1}v8\" stroke=\"{colour}\" stroke-width=\"1.5\"/>",
            x - 4.0,
            y - 4.0
        ),
    };
}

fn legend(svg: &mut String, lines: &[Line]) {
    for (nth, line) in lines.iter().enumerate() {
        let (column, row) = ((nth % 3) as f64, (nth / 3) as f64);
        let (x, y) = (LEFT + column * (WIDTH - LEFT - RIGHT) / 3.0, HEIGHT - 42.0 + row * 22.0);
        stroke(svg, line, &[(x, y), (x + 40.0, y)]);
        mark(svg, line, x + 20.0, y);
        let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"{:.1}\">{}</text>", x + 48.0, y + 4.0, escaped(&line.label));
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Day;

    fn report(plan: &str, factor: f64) -> Report {
        let day = |day: u32| Day {
            day,
            allowance: Some((200.0 * factor.powi(day as i32)) as u64),
            sent: (190.0 * factor.powi(day as i32)) as u64,
            deferred: u64::from(day % 3) * 10,
            ..Day::default()
        };
        Report { plan: plan.into(), days: (1..46).map(day).collect(), finished: None, grain: 1, outlook: Vec::new() }
    }

    #[test]
    fn two_trials_differ_by_more_than_colour_and_the_legend_names_every_line() {
        let svg = chart("a < b & c", &[report("gentle", 1.2), report("bold", 1.3)]);
        for label in ["gentle: plan", "gentle: sent", "gentle: deferred", "bold: plan", "bold: sent", "bold: deferred"] {
            assert!(svg.contains(&format!(">{label}</text>")), "{label}");
        }
        for shape in ["<circle", "<rect x=", "stroke-width=\"8\"", "l7 7", "h8M"] {
            assert!(svg.contains(shape), "{shape}");
        }
        assert!(svg.contains("<title>a &lt; b &amp; c</title>") && svg.contains("logarithmic"));
    }

    #[test]
    fn everything_is_drawn_inside_of_the_frame() {
        for reports in [vec![report("gentle", 1.2)], vec![report("flat", 1.0)], vec![]] {
            let svg = chart("x", &reports);
            let inside = |pair: &str| {
                let (x, y) = pair.split_once(',').unwrap();
                let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
                (LEFT - 0.1..=WIDTH - RIGHT + 0.1).contains(&x) && (TOP - 0.1..=HEIGHT).contains(&y)
            };
            for points in svg.split("points=\"").skip(1) {
                let points = points.split('"').next().unwrap();
                assert!(points.split(' ').all(inside), "{points}");
            }
            assert!(!svg.contains("NaN") && !svg.contains("inf"));
            assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
        }
    }

    #[test]
    fn the_axis_ends_at_a_round_number() {
        assert_eq!([3.0, 17.0, 20.0, 200.1, 4_999.0].map(nice), [5.0, 20.0, 20.0, 500.0, 5_000.0]);
    }
}
