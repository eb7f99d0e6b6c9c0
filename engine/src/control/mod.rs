//! control

pub mod journal;
pub mod load;
pub mod resolve;
