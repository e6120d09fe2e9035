use std::ops::RangeInclusive;
use std::rc::Rc;
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Report, Severity};
use super::source::{At, Source, Spot, Written};
use super::wording::{self, Complaint};
use super::words;
use crate::model::Mbps;

/// 400 Gbit/s, the fastest port in use; above is a unit taken for another.
const MBPS_MAX: i64 = 400_000;

/// A TOML table being read: every key is asked for by name, and `finish` reports the keys that
/// nobody asked for. Findings go to the report; a value that is wrong is then simply absent.
pub struct Table<'a> {
    /// How messages call it: `[wan.fibre]`, or empty for the top of a file.
    name: String,
    spot: Spot,
    entries: Vec<Entry<'a>>,
    known: Vec<&'static str>,
    report: &'a Report,
}

struct Entry<'a> {
    key: &'a str,
    spot: Spot,
    value: Value<'a>,
    taken: bool,
}

/// A TOML value being read.
#[derive(Clone)]
pub struct Value<'a> {
    /// How messages call it: the key.
    pub name: String,
    pub spot: Spot,
    value: &'a DeValue<'a>,
    report: &'a Report,
}

impl<'a> Table<'a> {
    /// The top of a file.
    pub fn of_document(document: &'a DeTable<'a>, source: &Rc<Source>, report: &'a Report) -> Table<'a> {
        Table::new(String::new(), Spot::at(source, 0), document, report)
    }

    fn new(name: String, spot: Spot, table: &'a DeTable<'a>, report: &'a Report) -> Table<'a> {
        let mut entries: Vec<(usize, Entry<'a>)> = table
            .iter()
            .map(|(key, value)| {
                let at = |span: std::ops::Range<usize>| Spot::at(&spot.source, span.start);
                let name = key.get_ref().to_string();
                let value = Value { name, spot: at(value.span()), value: value.get_ref(), report };
                (key.span().start, Entry { key: key.get_ref(), spot: at(key.span()), value, taken: false })
            })
            .collect();
        // The map is ordered by key; operators think in the order of their file.
        entries.sort_by_key(|(start, _)| *start);
        let entries = entries.into_iter().map(|(_, entry)| entry).collect();
        Table { name, spot, entries, known: Vec::new(), report }
    }

    pub fn spot(&self) -> &Spot {
        &self.spot
    }

    /// The value of this key, if there.
    pub fn value(&mut self, key: &'static str) -> Option<Value<'a>> {
        self.known.push(key);
        self.earlier(key)
    }

    /// The value of a key that only earlier versions had: nobody is led to it.
    pub fn earlier(&mut self, key: &str) -> Option<Value<'a>> {
        let entry = self.entries.iter_mut().find(|entry| entry.key == key)?;
        entry.taken = true;
        Some(entry.value.clone())
    }

    /// The value of this key; `example` is told where it is missing.
    pub fn required(&mut self, key: &'static str, example: &str) -> Option<Value<'a>> {
        let value = self.value(key);
        if value.is_none() {
            let place = if self.name.is_empty() { String::new() } else { format!(" in {}", self.name) };
            self.report.missing(&self.spot, format!("missing {key}{place}"), format!("such as {example}"));
        }
        value
    }

    /// A text that may be left out and may be wrong.
    pub fn written<T>(&mut self, key: &'static str, parse: impl FnOnce(&str) -> Result<T, Complaint>) -> Written<T> {
        match self.value(key).map(|value| value.parse_at(parse)) {
            None => Written::No,
            Some(None) => Written::Wrong,
            Some(Some(at)) => Written::Yes(at),
        }
    }

    pub fn table(&mut self, key: &'static str) -> Option<Table<'a>> {
        let name = self.child_name(key);
        self.value(key)?.table_called(name)
    }

    /// What may be a table or something else.
    pub fn table_or_value(&mut self, key: &'static str) -> Option<Result<Table<'a>, Value<'a>>> {
        let name = self.child_name(key);
        let value = self.value(key)?;
        if value.is_table() { value.table_called(name).map(Ok) } else { Some(Err(value)) }
    }

    /// The tables of an array of tables (`[[rule]]`), none where it is left out; `None` when the
    /// value is something else, which is reported.
    pub fn tables(&mut self, key: &'static str) -> Option<Vec<Table<'a>>> {
        let name = format!("[{}]", self.child_name(key));
        let Some(value) = self.value(key) else { return Some(Vec::new()) };
        match value.value {
            DeValue::Array(items) => {
                Some(items.iter().filter_map(|item| value.item(item).table_called(name.clone())).collect())
            }
            _ => {
                value.wrong_type("a list of tables", &name);
                None
            }
        }
    }

    /// All keys not asked for by name, each with its table: `[wan.fibre]`, `[wan.dsl]`, in file order.
    pub fn named_tables(&mut self) -> Vec<(At<&'a str>, Table<'a>)> {
        let mut tables = Vec::new();
        for index in 0..self.entries.len() {
            let name = self.entries.get(index).map(|entry| self.child_name(entry.key)).unwrap_or_default();
            let Some(entry) = self.entries.get_mut(index).filter(|entry| !entry.taken) else { continue };
            entry.taken = true;
            if let Some(table) = entry.value.clone().table_called(name) {
                tables.push((At { value: entry.key, spot: entry.spot.clone() }, table));
            }
        }
        tables
    }

    /// All keys not asked for by name, each with its value.
    pub fn named_values(&mut self) -> Vec<(At<&'a str>, Value<'a>)> {
        let rest = self.entries.iter_mut().filter(|entry| !entry.taken);
        rest.map(|entry| {
            entry.taken = true;
            (At { value: entry.key, spot: entry.spot.clone() }, entry.value.clone())
        })
        .collect()
    }

    /// Reports every key that was not asked for.
    pub fn finish(self) {
        for entry in self.entries.iter().filter(|entry| !entry.taken) {
            if self.report.is_full() {
                self.report.leave_out(Severity::Error);
                continue;
            }
            let place = if self.name.is_empty() { String::new() } else { format!(" in {}", self.name) };
            self.report.error(
                &entry.spot,
                format!("unknown key {}{place}", wording::quoted(entry.key)),
                wording::suggestion(entry.key, &self.known),
            );
        }
    }

    fn child_name(&self, key: &str) -> String {
        let parent = self.name.trim_start_matches('[').trim_end_matches(']');
        let key = wording::plain(key);
        if parent.is_empty() { format!("[{key}]") } else { format!("[{parent}.{key}]") }
    }
}

impl<'a> Value<'a> {
    pub fn error(&self, what: impl Into<String>, instead: impl Into<String>) {
        self.report.error(&self.spot, what, instead);
    }

    /// Of an item of it.
    pub fn error_at(&self, spot: &Spot, what: impl Into<String>, instead: impl Into<String>) {
        self.report.error(spot, what, instead);
    }

    pub fn at<T>(&self, value: T) -> At<T> {
        At { value, spot: self.spot.clone() }
    }

    fn table_called(self, name: String) -> Option<Table<'a>> {
        match self.value {
            DeValue::Table(table) => Some(Table::new(name, self.spot, table, self.report)),
            _ => {
                self.wrong_type("a table", &name);
                None
            }
        }
    }

    pub fn text(&self) -> Option<&'a str> {
        match self.value {
            DeValue::String(text) => Some(text),
            _ => {
                self.wrong_type("text in quotes", &format!("{} = \"...\"", wording::plain(&self.name)));
                None
            }
        }
    }

    pub fn boolean(&self) -> Option<bool> {
        match self.value {
            DeValue::Boolean(value) => Some(*value),
            _ => {
                self.wrong_type("true or false", &format!("{} = true", wording::plain(&self.name)));
                None
            }
        }
    }

    pub fn is_table(&self) -> bool {
        matches!(self.value, DeValue::Table(_))
    }

    /// The value as a table that messages call so.
    pub fn into_table(self, name: &str) -> Option<Table<'a>> {
        self.table_called(format!("[{name}]"))
    }

    pub fn is_text(&self, text: &str) -> bool {
        matches!(self.value, DeValue::String(found) if found == text)
    }

    pub fn is_empty_list(&self) -> bool {
        matches!(self.value, DeValue::Array(items) if items.is_empty())
    }

    pub fn is_integer(&self) -> bool {
        matches!(self.value, DeValue::Integer(_))
    }

    /// A whole number in this range; `unit` is told in messages and may be empty.
    pub fn number<T: TryFrom<i64>>(&self, range: RangeInclusive<i64>, unit: &str) -> Option<T> {
        let unit = if unit.is_empty() { String::new() } else { format!(" {unit}") };
        let allowed = format!("{} to {}{unit}", range.start(), range.end());
        let DeValue::Integer(integer) = self.value else {
            self.wrong_type("a whole number", &allowed);
            return None;
        };
        let number = i64::from_str_radix(integer.as_str(), integer.radix()).ok();
        let number = number.filter(|number| range.contains(number)).and_then(|number| T::try_from(number).ok());
        if number.is_none() {
            let found = wording::plain(&integer.to_string());
            self.error(format!("{} {found} is out of range", wording::plain(&self.name)), allowed);
        }
        number
    }

    /// A number with or without a fraction, in this range.
    pub fn decimal(&self, range: RangeInclusive<f64>, unit: &str) -> Option<f64> {
        let text = match self.value {
            DeValue::Integer(integer) if integer.radix() == 10 => integer.as_str(),
            DeValue::Float(float) => float.as_str(),
            _ => {
                self.wrong_type("a number", &format!("{} to {} {unit}", range.start(), range.end()));
                return None;
            }
        };
        let number = f64::from_str(text).ok().filter(|number| range.contains(number));
        if number.is_none() {
            self.error(
                format!("{} {} is out of range", wording::plain(&self.name), wording::plain(text)),
                format!("{} to {} {unit}", range.start(), range.end()),
            );
        }
        number
    }

    pub fn mbps(&self) -> Option<Mbps> {
        self.number(1..=MBPS_MAX, "Mbps").and_then(Mbps::new)
    }

    /// Text with a unit, in this range.
    pub fn duration(&self, range: RangeInclusive<Duration>) -> Option<Duration> {
        if let DeValue::Integer(integer) = self.value {
            let found = wording::plain(&integer.to_string());
            self.error(
                format!("{} {found} has no unit", wording::plain(&self.name)),
                format!("such as \"{found}s\", with ms, s, m, h or d"),
            );
            return None;
        }
        self.parse(|text| words::duration(text, range))
    }

    /// Text that `parse` understands.
    pub fn parse<T>(&self, parse: impl FnOnce(&str) -> Result<T, Complaint>) -> Option<T> {
        self.accept(parse(self.text()?))
    }

    /// The outcome of a parser, reported here when it is a complaint.
    pub fn accept<T>(&self, outcome: Result<T, Complaint>) -> Option<T> {
        match outcome {
            Ok(value) => Some(value),
            Err(complaint) => {
                self.error(complaint.what, complaint.instead);
                None
            }
        }
    }

    /// Like `parse`, with its place.
    pub fn parse_at<T>(&self, parse: impl FnOnce(&str) -> Result<T, Complaint>) -> Option<At<T>> {
        self.parse(parse).map(|value| self.at(value))
    }

    /// The values of a list; a single value is a list of one.
    pub fn items(&self, most: usize) -> Vec<Value<'a>> {
        match self.value {
            DeValue::Array(items) => {
                if items.len() > most {
                    self.error(
                        format!("{} has {} entries", wording::plain(&self.name), items.len()),
                        format!("at most {most}"),
                    );
                }
                items.iter().take(most).map(|item| self.item(item)).collect()
            }
            _ => vec![self.clone()],
        }
    }

    /// Every item of a list that `parse` understands, with its place.
    pub fn parse_items<T>(&self, most: usize, parse: impl Fn(&str) -> Result<T, Complaint>) -> Vec<At<T>> {
        self.items(most).iter().filter_map(|item| item.parse_at(&parse)).collect()
    }

    fn item(&self, item: &'a Spanned<DeValue<'a>>) -> Value<'a> {
        Value {
            name: self.name.clone(),
            spot: Spot::at(&self.spot.source, item.span().start),
            value: item.get_ref(),
            report: self.report,
        }
    }

    fn wrong_type(&self, expected: &str, example: &str) {
        let found = match self.value {
            DeValue::String(_) => "text",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a number with a fraction",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.error(format!("{} is {found}, not {expected}", wording::plain(&self.name)), example.to_string());
    }
}
