//! Line charts as SVG inside the page, readable without colours.

use std::fmt::Write as _;

use maud::{Markup, html};

/// The picture's size, in its own units, and the part of it that holds the lines.
const WIDTH: f64 = 400.0;
const HEIGHT: f64 = 132.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 392.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 110.0;

/// A line.
#[derive(Debug, Clone)]
pub(crate) struct Series {
    /// What it is called.
    pub(crate) name: &'static str,
    /// How it is drawn: a class of the style sheet.
    pub(crate) class: &'static str,
    /// From 0, the left edge, to 1, and the value there. Nothing is a gap.
    pub(crate) points: Vec<(f64, Option<f64>)>,
}

/// A moment that something was changed at.
#[derive(Debug, Clone)]
pub(crate) struct Mark {
    /// From 0 to 1.
    pub(crate) place: f64,
    /// What was changed.
    pub(crate) what: String,
    /// Whether it was a rollback.
    pub(crate) is_rollback: bool,
}

/// A chart.
#[derive(Debug)]
pub(crate) struct Chart<'c> {
    /// What it shows.
    pub(crate) title: &'c str,
    /// The lines.
    pub(crate) series: Vec<Series>,
    /// How a value is written.
    pub(crate) write: fn(f64) -> String,
    /// The least that the top stands for.
    pub(crate) least: f64,
    /// The most, if there is a most.
    pub(crate) most: f64,
    /// A level to draw, and what it is.
    pub(crate) level: Option<(f64, &'c str)>,
    /// What the left edge is.
    pub(crate) since: &'c str,
    /// What was changed meanwhile.
    pub(crate) marks: &'c [Mark],
}

impl Chart<'_> {
    /// The chart as a figure of the page.
    pub(crate) fn render(&self) -> Markup {
        let top = self.top();
        let y = |value: f64| BOTTOM - (value / top).clamp(0.0, 1.0) * (BOTTOM - TOP);
        let grid = [0.0, 0.5, 1.0].map(|share| (y(top * share), top * share));
        html! {
            figure.chart {
                figcaption {
                    strong { (self.title) }
                    @for series in &self.series {
                        @if let Some(now) = last(series) {
                            " " span.key {
                                svg.swatch viewBox="0 0 22 10" aria-hidden="true" {
                                    line class=(series.class) x1="0" x2="22" y1="5" y2="5" {}
                                }
                                (series.name) " " b { ((self.write)(now)) }
                            }
                        }
                    }
                }
                svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(self.summary()) {
                    @for (height, value) in grid {
                        line.grid x1=(LEFT) x2=(RIGHT) y1=(place(height)) y2=(place(height)) {}
                        text.tick x=(LEFT - 5.0) y=(place(height + 3.5)) text-anchor="end" { ((self.write)(value)) }
                    }
                    @for mark in self.marks {
                        line class=(if mark.is_rollback { "mark bad" } else { "mark" })
                            x1=(place(x(mark.place))) x2=(place(x(mark.place))) y1=(TOP) y2=(BOTTOM) {
                            title { (mark.what) }
                        }
                    }
                    @if let Some((level, name)) = self.level {
                        line.level x1=(LEFT) x2=(RIGHT) y1=(place(y(level))) y2=(place(y(level))) {
                            title { (name) }
                        }
                    }
                    @for series in &self.series {
                        @let (path, dots) = drawn(series, y);
                        path class=(series.class) d=(path) {}
                        @for (cx, cy) in dots {
                            circle class=(format!("dot {}", series.class)) cx=(place(cx)) cy=(place(cy)) r="2" {}
                        }
                    }
                    @if self.series.iter().all(|series| series.points.iter().all(|(_, value)| value.is_none())) {
                        text.empty x=(f64::midpoint(LEFT, RIGHT)) y="64" text-anchor="middle" { "nothing yet" }
                    }
                    text.tick x=(LEFT) y="126" { (self.since) " ago" }
                    text.tick x=(RIGHT) y="126" text-anchor="end" { "now" }
                }
            }
        }
    }

    /// The value of the top edge: a round number above all others.
    fn top(&self) -> f64 {
        let values = self.series.iter().flat_map(|series| &series.points).filter_map(|(_, value)| *value);
        let level = self.level.map_or(0.0, |(level, _)| level);
        rounded_up(values.fold(self.least.max(level), f64::max)).min(self.most)
    }

    /// The chart in words, for whoever does not see it.
    fn summary(&self) -> String {
        let part = |series: &Series| {
            let values: Vec<f64> = series.points.iter().filter_map(|(_, value)| *value).collect();
            let most = values.iter().copied().fold(0.0, f64::max);
            let now = values.last()?;
            Some(format!("{}: last {}, at most {}", series.name, (self.write)(*now), (self.write)(most)))
        };
        let parts: Vec<_> = self.series.iter().filter_map(part).collect();
        let parts = if parts.is_empty() { "nothing yet".to_owned() } else { parts.join("; ") };
        format!("{}, since {} ago. {parts}", self.title, self.since)
    }
}

fn x(share: f64) -> f64 {
    LEFT + share.clamp(0.0, 1.0) * (RIGHT - LEFT)
}

fn place(number: f64) -> String {
    format!("{number:.1}")
}

/// How long a value is told as the present one, as a share of the span.
const RECENT: f64 = 0.05;

/// The value that a line ends with, unless it ended long ago.
fn last(series: &Series) -> Option<f64> {
    let (end, _) = series.points.last()?;
    let recent = series.points.iter().rev().take_while(|(place, _)| end - place <= RECENT);
    recent.filter_map(|(_, value)| *value).next()
}

/// A line's path, and the points that have no neighbour to be joined with.
fn drawn(series: &Series, y: impl Fn(f64) -> f64) -> (String, Vec<(f64, f64)>) {
    let (mut path, mut dots) = (String::new(), Vec::new());
    for run in series.points.split(|(_, value)| value.is_none()) {
        let points: Vec<_> = run.iter().filter_map(|(share, value)| Some((x(*share), y((*value)?)))).collect();
        if let [lonely] = points.as_slice() {
            dots.push(*lonely);
            continue;
        }
        for (index, (x, y)) in points.into_iter().enumerate() {
            let _ = write!(path, "{}{x:.1} {y:.1}", if index == 0 { 'M' } else { 'L' });
        }
    }
    (path, dots)
}

/// 1, 2, 2.5 or 5 times a power of ten, not below `value`.
fn rounded_up(value: f64) -> f64 {
    if value <= 0.0 || !value.is_finite() {
        return 1.0;
    }
    let unit = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 2.5, 5.0, 10.0];
    // A hair's breadth of rounding may not double the scale.
    let fits = |step: &&f64| **step * unit >= value * (1.0 - 1e-9);
    steps.iter().find(fits).map_or(value, |step| step * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_round() {
        for (value, top) in [(0.0, 1.0), (1.0, 1.0), (1.1, 2.0), (23.0, 25.0), (0.03, 0.05), (51.0, 100.0)] {
            assert!((rounded_up(value) - top).abs() < 1e-9, "{value}");
        }
    }

    #[test]
    fn lines_have_gaps_and_lonely_points() {
        let series = |points| Series { name: "canary", class: "canary", points };
        let (path, dots) =
            drawn(&series(vec![(0.0, Some(0.0)), (0.5, Some(1.0)), (0.6, None), (1.0, Some(1.0))]), |y| y);
        assert_eq!(path, "M52.0 0.0L222.0 1.0");
        assert_eq!(dots, [(392.0, 1.0)]);
    }

    #[test]
    fn whoever_does_not_see_a_chart_is_told() {
        let series =
            vec![Series { name: "canary", class: "canary", points: vec![(0.0, Some(0.5)), (1.0, Some(0.25))] }];
        let chart = Chart {
            title: "Error rate",
            series,
            write: |share| format!("{} %", share * 100.0),
            least: 0.01,
            most: 1.0,
            level: None,
            since: "10 min",
            marks: &[],
        };
        let html = chart.render().into_string();
        assert!(html.contains("Error rate, since 10 min ago. canary: last 25 %, at most 50 %"), "{html}");
        assert!(!html.contains("style="), "the content security policy allows none");
    }
}
