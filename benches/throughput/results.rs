use std::collections::BTreeMap;

use crate::metric::Metric;
use crate::product::{Kind, Product};
use crate::settings::Settings;

/// All figures of a run, by product, metric and round.
pub struct Results {
    pub rounds: u32,
    pub seconds: u32,
    pub columns: Vec<Column>,
    /// How much of the machine was busy before each turn, 0 to 1: others disturb the measurement.
    pub busy_between: Vec<f64>,
}

pub struct Column {
    pub kind: Kind,
    pub name: String,
    pub version: String,
    /// Of this round.
    current: BTreeMap<Metric, f64>,
    rounds: BTreeMap<Metric, Vec<f64>>,
}

impl Results {
    pub fn new(settings: &Settings, products: &[Product]) -> Results {
        let columns = products.iter().map(|product| Column {
            kind: product.kind,
            name: product.name.clone(),
            version: product.version.clone(),
            current: BTreeMap::new(),
            rounds: BTreeMap::new(),
        });
        let (rounds, seconds) = (settings.rounds, settings.seconds);
        Results { rounds, seconds, columns: columns.collect(), busy_between: Vec::new() }
    }

    pub fn add(&mut self, column: usize, metric: Metric, value: f64) {
        self.columns[column].current.insert(metric, value);
    }

    /// Works out what a product adds to the plain veth of the same round.
    pub fn end_of_round(&mut self) {
        let bare = self.columns.iter().find(|column| column.kind == Kind::Veth).map(|column| column.current.clone());
        for column in &mut self.columns {
            let trips = [(Metric::RoundTripMedian, Metric::AddedMedian), (Metric::RoundTripP99, Metric::AddedP99)];
            for (trip, added) in trips {
                let bare = bare.as_ref().and_then(|bare| bare.get(&trip));
                if let (Some(own), Some(bare), true) = (column.current.get(&trip), bare, column.kind != Kind::Veth) {
                    column.current.insert(added, (own - bare) / 2.0);
                }
            }
            for (metric, value) in std::mem::take(&mut column.current) {
                column.rounds.entry(metric).or_default().push(value);
            }
        }
    }

    /// Trefoil's own column.
    pub fn ours(&self) -> Option<&Column> {
        self.columns.iter().find(|column| column.kind == Kind::Trefoil)
    }

    pub fn of(&self, kind: Kind) -> Option<&Column> {
        self.columns.iter().find(|column| column.kind == kind)
    }
}

impl Column {
    /// The middle one of the rounds, or between the two middle ones.
    pub fn median(&self, metric: Metric) -> Option<f64> {
        let mut values = self.rounds.get(&metric)?.clone();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        match values.len() {
            0 => None,
            length if length % 2 == 1 => Some(values[middle]),
            _ => Some((values[middle - 1] + values[middle]) / 2.0),
        }
    }

    /// Lowest and highest of the rounds.
    pub fn range(&self, metric: Metric) -> Option<(f64, f64)> {
        let values = self.rounds.get(&metric)?;
        let low = values.iter().copied().min_by(f64::total_cmp)?;
        let high = values.iter().copied().max_by(f64::total_cmp)?;
        Some((low, high))
    }
}
