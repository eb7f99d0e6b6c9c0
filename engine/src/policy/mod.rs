//! Facts to Decision: one total pure function, and the few questions that come after it.
//!
//! No I/O, no clock, no environment: what the environment says is handed in when a `Policy` is built.
