//! What a target table is like in Harper.

pub mod attributes;
