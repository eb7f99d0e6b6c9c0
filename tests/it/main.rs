//! The integration tests of the built program: one binary, a file a subject.
//!
//! Sizes: `WEIR_TEST_BULK_MB` (default 256; 2048 is the full figure) and `WEIR_TEST_RUNS` (default 10; 100).
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::disallowed_types,
    missing_docs,
    unreachable_pub,
    reason = "tests: a panic is the failure"
)]
mod bad_input;
mod cli;
mod clients;
mod contract;
mod faults;
mod gate;
mod http;
mod http_body;
mod http_strict;
mod lifecycle;
mod parent;
mod refusals;
mod scale;
mod tunnel;
