//! The results as text: for the terminal, and for `docs/performance.md`.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::goals::{Goal, judge};
use crate::metric::Metric;
use crate::plot;
use crate::results::{Column, Results};

const BEGIN: &str = "<!-- measured: begin -->";
const END: &str = "<!-- measured: end -->";

/// Tables with columns of equal width.
pub fn plain(results: &Results) -> String {
    let mut text = format!("{}\n\n", conditions(results));
    align(&mut text, &table(results));
    text.push('\n');
    align(&mut text, &goal_table(results));
    text
}

/// Puts tables and plot into the documentation, between its marks.
pub fn write(results: &Results) -> Result<(), String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let file = folder.join("performance.md");
    let fault = |error: std::io::Error| format!("{}: {error}", file.display());
    let old = fs::read_to_string(&file).map_err(fault)?;
    let (head, rest) = old.split_once(BEGIN).ok_or_else(|| format!("{} lacks {BEGIN}", file.display()))?;
    let (_, tail) = rest.split_once(END).ok_or_else(|| format!("{} lacks {END}", file.display()))?;
    let mut text = format!("{head}{BEGIN}\n{}\n\n", conditions(results));
    markdown(&mut text, &table(results));
    text.push('\n');
    markdown(&mut text, &goal_table(results));
    let _ = write!(text, "{END}{tail}");
    fs::write(&file, text).map_err(fault)?;
    fs::write(folder.join("performance.svg"), plot::draw(results)).map_err(fault)
}

fn conditions(results: &Results) -> String {
    let model = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = model.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("a processor");
    let model = model.trim_start_matches([' ', '\t', ':']);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let busy = results.busy_between.iter().sum::<f64>() / results.busy_between.len().max(1) as f64 * 100.0;
    format!(
        "{model}, {cores} cores for everything, hosts included; Linux {}. Medians of {} rounds of {} seconds a load, \
         lowest and highest in brackets. Before the turns, the machine was {busy:.0} % busy with other things.",
        kernel.trim(),
        results.rounds,
        results.seconds,
    )
}

fn table(results: &Results) -> Vec<Vec<String>> {
    let mut head = vec![String::new()];
    head.extend(results.columns.iter().map(|column| format!("{} {}", column.name, column.version)));
    let mut rows = vec![head];
    for metric in Metric::ALL {
        if results.columns.iter().all(|column| column.median(metric).is_none()) {
            continue;
        }
        let mut row = vec![metric.label().to_owned()];
        row.extend(results.columns.iter().map(|column| cell(column, metric, results.rounds)));
        rows.push(row);
    }
    rows
}

fn cell(column: &Column, metric: Metric, rounds: u32) -> String {
    match (column.median(metric), column.range(metric)) {
        (Some(median), Some((low, high))) if rounds > 1 && low < high => {
            format!("{} ({}–{})", metric.show(median), metric.show(low), metric.show(high))
        }
        (Some(median), _) => metric.show(median),
        (None, _) => "–".to_owned(),
    }
}

fn goal_table(results: &Results) -> Vec<Vec<String>> {
    let head = ["goal", "against", "wanted", "reached", ""].map(str::to_owned).to_vec();
    let row = |goal: Goal| {
        let mark = match goal.met {
            Some(true) => "✓",
            Some(false) => "✗",
            None => "not measured",
        };
        vec![goal.what, goal.against.to_owned(), goal.wanted, goal.reached.unwrap_or("–".to_owned()), mark.to_owned()]
    };
    std::iter::once(head).chain(judge(results).into_iter().map(row)).collect()
}

fn markdown(text: &mut String, rows: &[Vec<String>]) {
    for (index, row) in rows.iter().enumerate() {
        let _ = writeln!(text, "| {} |", row.join(" | "));
        if index == 0 {
            let _ = writeln!(text, "|{}", " --- |".repeat(row.len()));
        }
    }
}

fn align(text: &mut String, rows: &[Vec<String>]) {
    let columns = rows.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..columns)
        .map(|column| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0))
        .collect();
    for row in rows {
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(text, "{cell:<width$}  ");
        }
        let end = text.trim_end_matches(' ').len();
        text.truncate(end);
        text.push('\n');
    }
}
