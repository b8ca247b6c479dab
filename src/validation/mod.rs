//! Whether a node's copy of a table equals its source.
//!
//! A worker has BigQuery count and digest the cursors of the rows that it owns, leaf by leaf: a leaf is a span of cursor
//! time. That costs the cursor column alone. Each node then computes the same from the ids of its own copy, for nothing.
//! Leaves that differ twice are read again. What the source no longer has then may be deleted.

mod check;
mod comparison;
mod digest;
mod extras;
mod keys;
mod leaves;
mod vetted;

pub use check::{Check, Conclusion, Place, Repair, State};
pub use comparison::{Comparison, Difference, Finding};
pub use digest::{Digest, WORDS};
pub use extras::{Consent, Deletion, Extras, Period, Seen};
pub use keys::KeyComparison;
pub use leaves::{Leaf, Leaves, Listing, Progress, Span, StoredCursor, UnknownRule};
pub use vetted::{Vetted, Vetting};
