//! What operators are told.

pub mod news;
