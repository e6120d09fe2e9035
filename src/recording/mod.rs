//! Floor 5: the flight recorder. What control and workers decided, and what they decided it by, as lines
//! of JSON in compressed blocks, in a bounded ring of files; and the same read again: the answer to
//! `explain` for a past moment, and a replay that decides everything anew.
//!
//! The road out: `queue` brings news, `Journal` turns what is told into `Line`s, `block` packs them, `Ring` keeps the files.
//! The road back: `Reader` finds blocks and lines, `Replay` follows them with the code that decided
//! then, `Past` stops at a moment.

mod block;
mod clock;
mod face;
mod journal;
mod line;
mod lookup;
mod past;
mod plan_record;
mod queue;
mod reader;
mod replay;
mod ring;
mod storage;
#[cfg(test)]
mod tests;
mod timeline;
mod writer;

pub use block::{Block, BlockHeader};
pub use clock::{WallTime, When, wall};
pub use journal::{Journal, News};
pub use line::{Entry, FORMAT, Line, Told};
pub use lookup::{Found, Span};
pub use past::{PastError, explain_at};
pub use queue::{Gauge, Inbox, Outbox, QUEUE_BYTES, QUEUE_ENTRIES, queue};
pub use reader::{Part, ReadError, Reader, Trouble};
pub use replay::{Checked, Difference, Replay};
pub use ring::{Extent, Ring, RingLimits};
pub use storage::{Disk, Storage};
pub use timeline::{DifferenceStatus, ReplayError, Report, Step, replay};
pub use writer::{Batch, Writer, WriterStatus};
