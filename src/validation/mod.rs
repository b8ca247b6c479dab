//! Whether a node's copy of a table equals its source.
//!
//! A worker has BigQuery count and digest the cursors of the rows that it owns, leaf by leaf: a leaf is a span of cursor
//! time. That costs the cursor column alone. Each node then computes the same from the ids of its own copy, for nothing.
//! Leaves that differ twice are read again. What the source no longer has then may be deleted.
//!
//! Besides, nodes compare their copies with each other when one of them has returned.

mod check;
mod comparison;
mod digest;
mod extras;
mod keys;
mod leaves;
mod neighbours;
mod returns;
mod summing;
mod vetted;

pub use check::{Check, Conclusion, Place, Repair, State};
pub use comparison::{Comparison, Difference, Finding};
pub use digest::{Digest, WORDS};
pub use extras::{Consent, Deletion, Extras, Period, Seen};
pub use keys::KeyComparison;
pub use leaves::{Leaf, Leaves, Listing, Progress, Span, StoredCursor, UnknownRule};
pub use neighbours::{Situation, Stage, Step, Summary, forgotten_until, mended, next, stamp_after};
pub use returns::{Neighbour, Returns};
pub use summing::{Put, Reading};
pub use vetted::{Vetted, Vetting};
