//! The pieces of the harness, one idea a file.

pub mod binary;
pub mod client;
pub mod daemon;
pub mod driver;
pub mod hello;
pub mod http;
pub mod journal;
pub mod namespace;
pub mod origin;
pub mod parent;
pub mod pattern;
pub mod place;
pub mod proc;
pub mod wait;
