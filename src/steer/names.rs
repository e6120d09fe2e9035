use std::collections::BTreeMap;

use arrayvec::ArrayVec;
use serde::{Deserialize, Serialize};

use crate::model::NameId;

/// Patterns that the names of one address are held to match, at most: those beyond would be the least
/// particular.
pub const NAMES_OF_ADDRESS: usize = 4;

/// Patterns that the names of an address match: at most `NAMES_OF_ADDRESS`, none twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KnownNames([NameId; NAMES_OF_ADDRESS]);

impl KnownNames {
    /// Of these, as many as there is room for.
    pub fn new(ids: impl IntoIterator<Item = NameId>) -> KnownNames {
        let mut names = KnownNames::default();
        names.0.iter_mut().zip(ids).for_each(|(place, id)| *place = id);
        names
    }

    pub fn iter(&self) -> impl Iterator<Item = NameId> {
        self.0.into_iter().filter(|id| *id != NameId::default())
    }

    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

/// The names that rules ask for: `www.example.com` itself, or `*.example.com` for all below it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NamePatterns {
    /// As written, in lower case; `NameId` counts them from 1.
    patterns: Vec<String>,
    /// Without the star and its dot, for those that have one.
    numbers: BTreeMap<(String, bool), NameId>,
}

impl NamePatterns {
    pub fn new(patterns: Vec<String>) -> NamePatterns {
        let mut all = NamePatterns::default();
        for pattern in patterns {
            all.number_of(&pattern);
        }
        all
    }

    /// The number of a pattern; a new one gets the next, while there are some.
    pub fn number_of(&mut self, pattern: &str) -> Option<NameId> {
        let pattern = pattern.trim_end_matches('.').to_ascii_lowercase();
        let key = match pattern.strip_prefix("*.") {
            Some(below) => (below.to_owned(), true),
            None => (pattern.clone(), false),
        };
        if let Some(known) = self.numbers.get(&key) {
            return Some(*known);
        }
        let id = NameId(u16::try_from(self.patterns.len()).ok()?.checked_add(1)?);
        self.patterns.push(pattern);
        self.numbers.insert(key, id);
        Some(id)
    }

    pub fn all(&self) -> &[String] {
        &self.patterns
    }

    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    pub fn text(&self, id: NameId) -> Option<&str> {
        self.patterns.get(usize::from(id.0).checked_sub(1)?).map(String::as_str)
    }

    /// The patterns that a name matches, the most particular first.
    pub fn matching(&self, name: &str) -> ArrayVec<NameId, NAMES_OF_ADDRESS> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let mut found = ArrayVec::new();
        found.extend(self.numbers.get(&(name.clone(), false)).copied());
        let mut rest = name.as_str();
        while let Some((_, below)) = rest.split_once('.') {
            if let Some(id) = self.numbers.get(&(below.to_owned(), true))
                && found.try_push(*id).is_err()
            {
                break;
            }
            rest = below;
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_what_is_below_and_not_for_the_name_itself() {
        let texts = ["example.com", "*.example.com", "*.com", "WWW.Example.com."].map(str::to_owned);
        let patterns = NamePatterns::new(texts.to_vec());
        let of = |name: &str| patterns.matching(name).iter().map(|id| id.0).collect::<Vec<_>>();
        assert_eq!(of("example.com"), [1, 3]);
        assert_eq!(of("www.EXAMPLE.com."), [4, 2, 3]);
        assert_eq!(of("a.b.example.com"), [2, 3]);
        assert_eq!(of("badexample.com"), [3]);
        assert_eq!((of("com"), of(""), of("example.org")), (vec![], vec![], vec![]));
        assert_eq!(patterns.text(NameId(4)), Some("www.example.com"));
        assert_eq!((patterns.text(NameId(0)), patterns.text(NameId(5))), (None, None));
    }
}
