use std::ops::RangeInclusive;
use std::time::Duration;

use super::diagnostic::Report;
use super::table::{Table, Value};
use super::wording::{self, Complaint};
use crate::ha::{FAILBACK_DEFAULT, Failback};

const AFTER: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(86_400);
/// `failback_hold` had no other way to say `"immediate"`.
const HOLD: RangeInclusive<Duration> = Duration::ZERO..=*AFTER.end();

/// A connector's `failback`: `"immediate"`, `"manual"` or `{ after = "60s" }`. `failback_hold = "60s"` is how earlier
/// versions had it: still read, with a warning.
pub fn read(table: &mut Table<'_>, report: &Report) -> Failback {
    let (present, earlier) = (table.value("failback"), table.earlier("failback_hold"));
    let held = earlier.as_ref().and_then(|value| value.duration(HOLD)).map(|hold| match hold {
        Duration::ZERO => Failback::Immediate,
        hold => Failback::After(hold),
    });
    match (present, earlier) {
        (None, None) => FAILBACK_DEFAULT,
        (Some(value), None) => policy(value).unwrap_or(FAILBACK_DEFAULT),
        (Some(value), Some(earlier)) => {
            earlier.error(format!("failback is given at {} already", value.spot), "without failback_hold");
            policy(value).unwrap_or(FAILBACK_DEFAULT)
        }
        (None, Some(earlier)) => {
            let now = match held {
                Some(Failback::Immediate) => "failback = \"immediate\"".to_owned(),
                Some(Failback::After(_) | Failback::Manual) | None => {
                    format!("failback = {{ after = {} }}", wording::quoted(earlier.text().unwrap_or("60s")))
                }
            };
            if held.is_some() {
                report.warn(&earlier.spot, "failback_hold is written in another way now".to_owned(), &now);
            }
            held.unwrap_or(FAILBACK_DEFAULT)
        }
    }
}

fn policy(value: Value<'_>) -> Option<Failback> {
    if !value.is_table() {
        return value.parse(|text| match text {
            "immediate" => Ok(Failback::Immediate),
            "manual" => Ok(Failback::Manual),
            _ => Err(Complaint {
                what: format!("unknown failback {}", wording::quoted(text)),
                instead: "\"immediate\", \"manual\" or { after = \"60s\" }".to_owned(),
            }),
        });
    }
    let mut table = value.into_table("failback")?;
    let after = table.required("after", "{ after = \"60s\" }").and_then(|value| value.duration(AFTER));
    table.finish();
    after.map(Failback::After)
}
