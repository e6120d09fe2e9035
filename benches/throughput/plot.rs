//! The results as bars, one panel a figure.

use std::fmt::Write;

use crate::metric::Metric;
use crate::product::Kind;
use crate::results::{Column, Results};

const PANELS: [(Metric, &str); 8] = [
    (Metric::Tcp1, "more is better"),
    (Metric::Tcp8, "more is better"),
    (Metric::Udp64, "more is better"),
    (Metric::Udp1300, "more is better"),
    (Metric::TcpCpuPerGigabyte, "less is better"),
    (Metric::SteadyCpu, "less is better"),
    (Metric::AddedMedian, "less is better"),
    (Metric::Memory, "less is better"),
];

// In pixels.
const PANEL_WIDTH: usize = 470;
const NAME_WIDTH: usize = 120;
const BAR_WIDTH: f64 = 250.0;
const BAR_HEIGHT: usize = 16;
const ROW: usize = 22;
const TITLE: usize = 52;

pub fn draw(results: &Results) -> String {
    let panel_height = TITLE + ROW * results.columns.len() + 12;
    let (width, height) = (PANEL_WIDTH * 2, panel_height * PANELS.len().div_ceil(2));
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    for (index, (metric, better)) in PANELS.into_iter().enumerate() {
        let (x, y) = (index % 2 * PANEL_WIDTH, index / 2 * panel_height);
        let _ = writeln!(svg, "<g transform=\"translate({x} {y})\">");
        let _ = writeln!(
            svg,
            "<text x=\"12\" y=\"26\" font-weight=\"bold\" fill=\"#1f2933\">{}</text>\
             <text x=\"12\" y=\"42\" font-size=\"11\" fill=\"#6b7785\">{better}</text>",
            metric.label()
        );
        panel(&mut svg, results, metric);
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    svg
}

fn panel(svg: &mut String, results: &Results, metric: Metric) {
    let values = results.columns.iter().filter_map(|column| column.median(metric));
    let longest = values.max_by(f64::total_cmp).filter(|longest| *longest > 0.0).unwrap_or(1.0);
    for (row, column) in results.columns.iter().enumerate() {
        let top = TITLE + row * ROW;
        let base = top + BAR_HEIGHT - 4;
        let Column { name, kind, .. } = column;
        let _ = writeln!(svg, "<text x=\"12\" y=\"{base}\" fill=\"#1f2933\">{name}</text>");
        let (length, label) = match column.median(metric) {
            Some(value) => ((value / longest).max(0.0) * BAR_WIDTH, metric.show(value)),
            None => (0.0, "–".to_owned()),
        };
        let colour = match kind {
            Kind::Trefoil => "#2f855a",
            Kind::Veth => "#b8c2cc",
            Kind::Strongswan | Kind::WireguardGo | Kind::Boringtun | Kind::Gotatun => "#718096",
        };
        let _ = writeln!(
            svg,
            "<rect x=\"{NAME_WIDTH}\" y=\"{top}\" width=\"{length:.1}\" height=\"{BAR_HEIGHT}\" fill=\"{colour}\"/>\
             <text x=\"{:.1}\" y=\"{base}\" fill=\"#1f2933\">{label}</text>",
            NAME_WIDTH as f64 + length + 6.0
        );
    }
}
