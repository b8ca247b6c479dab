//! What the people who run the sync are told.

pub mod news;
