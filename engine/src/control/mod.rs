//! control

pub mod journal;
pub mod resolve;
