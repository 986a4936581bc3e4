//! The comparison as a picture: throughput and latency over concurrency.

use std::fmt::Write as _;

use crate::cli::compare::report::{Measured, Report};

const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 300.0;
/// Room for the axes' words.
const MARGIN: f64 = 60.0;
/// The colours of the variants; apart also for those who see few colours (Okabe and Ito, 2008).
const COLOURS: [&str; 2] = ["#0072B2", "#D55E00"];

/// An SVG document.
pub(crate) fn draw(report: &Report) -> String {
    let whole = 2.0 * WIDTH;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {whole} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{whole}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    panel(&mut svg, report, 0.0, "answers a second", |cell| cell.per_second);
    panel(&mut svg, report, WIDTH, "p99 in ms", |cell| cell.p99_ms);
    svg.push_str("</svg>\n");
    svg
}

fn panel(svg: &mut String, report: &Report, left: f64, title: &str, value: fn(&Measured) -> f64) {
    let highest = report.measured.iter().map(value).fold(1.0_f64, f64::max) * 1.1;
    let most = report.measured.iter().map(|cell| cell.concurrency).max().unwrap_or(1).max(2) as f64;
    // Concurrency grows by factors, so its axis is logarithmic.
    let x = |clients: f64| left + MARGIN + clients.ln() / most.ln() * (WIDTH - 2.0 * MARGIN);
    let y = |value: f64| HEIGHT - MARGIN - value / highest * (HEIGHT - 2.0 * MARGIN);
    let (bottom, right) = (HEIGHT - MARGIN, left + WIDTH - MARGIN);
    let start = left + MARGIN;
    let mut line = |text: std::fmt::Arguments<'_>| {
        // Writing to a string cannot fail.
        let _: std::fmt::Result = writeln!(svg, "{text}");
    };
    line(format_args!("<text x=\"{start}\" y=\"24\" font-weight=\"bold\">{title}</text>"));
    line(format_args!("<path d=\"M{start},{MARGIN} V{bottom} H{right}\" fill=\"none\" stroke=\"black\"/>"));
    for part in 0..=4 {
        let level = highest * f64::from(part) / 4.0;
        let height = y(level);
        line(format_args!(
            "<path d=\"M{start},{height:.1} H{right}\" stroke=\"#ddd\"/><text x=\"{:.1}\" y=\"{:.1}\" \
             text-anchor=\"end\">{level:.0}</text>",
            start - 6.0,
            height + 4.0
        ));
    }
    let mut marked: Vec<usize> = report.measured.iter().map(|cell| cell.concurrency).collect();
    marked.dedup();
    for clients in marked {
        line(format_args!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{clients}</text>",
            x(clients as f64),
            bottom + 16.0
        ));
    }
    line(format_args!("<text x=\"{right}\" y=\"{:.1}\" text-anchor=\"end\">clients</text>", bottom + 34.0));
    for (number, (variant, colour)) in report.variants.iter().zip(COLOURS).enumerate() {
        let points: Vec<String> = report
            .measured
            .iter()
            .filter(|cell| cell.variant == *variant)
            .map(|cell| format!("{:.1},{:.1}", x(cell.concurrency as f64), y(value(cell))))
            .collect();
        line(format_args!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            points.join(" ")
        ));
        for point in &points {
            let (x, y) = point.split_once(',').unwrap_or_default();
            line(format_args!("<circle cx=\"{x}\" cy=\"{y}\" r=\"3\" fill=\"{colour}\"/>"));
        }
        line(format_args!(
            "<text x=\"{:.1}\" y=\"40\" fill=\"{colour}\">{variant}</text>",
            start + 80.0 * number as f64
        ));
    }
}
