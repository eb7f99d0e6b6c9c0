//! weir as a library: a persistent egress proxy for CI machines.
//!
//! The path of a connection, with the folder that owns each stage:
//!
//! ```text
//! accept -> read head -> canonical target -> decide -> journal -> tunnel | forward | refuse -> journal
//! driver    wire         wire::target       policy    audit      driver                        audit
//! ```
//!
//! Who may call whom (`tests/tidy.rs` checks it):
//!
//! ```text
//! cli -> control -> driver -> policy, audit -> wire -> limits, error
//! ```
//!
//! `wire`, `policy` and `audit` are pure: they know no socket, no thread, no clock and no environment;
//! `now` is an argument. `driver` is the data plane: sockets, cores, timers. `control` is everything slow,
//! rare or chatty: signals, the control socket, the journal's writer, names. The planes meet in `mail`
//! (one mailbox a core), in immutable snapshots (the policy behind an `Arc`), and in counters.

pub mod audit;
pub mod control;
pub mod driver;
pub mod error;
pub mod external;
pub mod limits;
pub mod mail;
pub mod policy;
pub mod wire;
