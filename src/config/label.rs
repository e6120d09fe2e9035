//! What connectors and profiles carry for people: labels and a description.

use super::table::Table;
use super::wording;
use super::words;

/// More would not be looked at.
const LABELS_MAX: usize = 64;

/// `labels = { env = "prod" }`, in file order.
pub fn read_labels(table: &mut Table<'_>) -> Vec<(String, String)> {
    let Some(mut labels) = table.table("labels") else { return Vec::new() };
    let pairs = labels.named_values();
    if let Some((key, value)) = pairs.get(LABELS_MAX) {
        value.error(format!("{} is one label too many", wording::quoted(key.value)), format!("at most {LABELS_MAX}"));
    }
    let read = pairs.iter().filter_map(|(key, value)| {
        let name = value.accept(words::name(key.value));
        let text = value.parse(words::free_text);
        Some((name?, text?))
    });
    read.collect()
}

pub fn read_description(table: &mut Table<'_>) -> Option<String> {
    table.value("description").and_then(|value| value.parse(words::free_text))
}
