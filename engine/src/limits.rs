//! Every bound of weir, with its unit and its reason.
//!
//! Not here: what a policy can set (that is `policy::config`), and sizes that are no limit on a peer.
//! Relations between bounds are asserted at compile time at the end.

use std::time::Duration;

/// Bytes of one HTTP/1 head, first line and fields. The largest real heads (cookies, SPNEGO) stay under 32 KiB.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Bytes of the request or status line inside a head.
pub const FIRST_LINE_BYTES_MAX: usize = 16 * 1024;
/// Header fields in one head.
pub const HEAD_FIELDS_MAX: usize = 128;
/// Bytes of one chunk-size line with its extensions (RFC 9112, 7.1.1 asks for a bound).
pub const CHUNK_LINE_BYTES_MAX: usize = 256;
/// Bytes of a trailer section.
pub const TRAILER_BYTES_MAX: usize = 8 * 1024;
/// Bytes of handshake records until a ClientHello is complete. Real ones are under 2 KiB; post-quantum shares grow.
pub const HELLO_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a DNS name in presentation form (RFC 1035, 2.3.4).
pub const NAME_BYTES_MAX: usize = 253;
/// Bytes of one label (RFC 1035, 2.3.4).
pub const LABEL_BYTES_MAX: usize = 63;

/// From the first byte of a head to its last; absolute, a drip does not reset it.
pub const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// A client connection without a request in flight is closed after this.
pub const KEEP_ALIVE_IDLE: Duration = Duration::from_secs(75);
/// A tunnel or body without a byte in either direction is closed after this. CI jobs hold long quiet downloads.
pub const TRAFFIC_IDLE: Duration = Duration::from_secs(30 * 60);
/// A client that has closed its side of a plain request gets no more than this much silence before it counts as gone.
pub const HALF_CLOSED_IDLE: Duration = Duration::from_secs(5);
/// How long the first flight of a tunnel may take to say what it is, before it is passed on as it stands.
pub const SNIFF_DEADLINE: Duration = Duration::from_secs(3);
/// One address gets this long to accept a connection before the next is tried.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// All addresses of a name together.
pub const DIAL_DEADLINE: Duration = Duration::from_secs(30);
/// A name must be answered within this.
pub const RESOLVE_DEADLINE: Duration = Duration::from_secs(10);
/// A parent proxy must answer a CONNECT within this.
pub const PARENT_DEADLINE: Duration = Duration::from_secs(30);
/// Traffic younger than this keeps a tunnel open during a drain.
pub const DRAIN_QUIET: Duration = Duration::from_secs(2);
/// Default time that `stop` gives to connections in flight.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(30);

/// Connections a core serves at once; past it new ones are refused with 503.
pub const CONNECTIONS_PER_CORE_MAX: usize = 16 * 1024;
/// Letters that wait in a core's mailbox. A connection has at most two questions open, and hand-offs are bounded too.
pub const MAILBOX_LETTERS_MAX: usize = 64 * 1024;
/// Connections taken from the listener at one wake.
pub const ACCEPT_BATCH_MAX: usize = 64;
/// Records that wait for the journal's writer; past it a new decision is refused with 503.
pub const JOURNAL_RECORDS_MAX: usize = 64 * 1024;
/// Bytes of one journal line, line feed included: the longest fields, each byte escaped to six, still fit.
pub const JOURNAL_LINE_BYTES_MAX: usize = 32 * 1024;
/// Bytes of a path that a record keeps, before escaping.
pub const RECORD_PATH_BYTES_MAX: usize = 1024;
/// Bytes of any other free text that a record keeps, before escaping: reasons, job names, targets.
pub const RECORD_TEXT_BYTES_MAX: usize = 512;
/// An unhurried record waits at most this long for others to share its write.
pub const JOURNAL_BATCH_DELAY: Duration = Duration::from_millis(5);
/// Bytes that the journal's writer gathers before it writes without waiting further.
pub const JOURNAL_BATCH_BYTES: usize = 256 * 1024;
/// What is written reaches the disk within this (fdatasync); an idle journal is not synced.
pub const JOURNAL_SYNC_EVERY: Duration = Duration::from_secs(1);
/// Violations that are kept one by one for the report of `stop`; the count goes on.
pub const VIOLATIONS_KEPT_MAX: usize = 1_000;
/// Names that wait for the resolver threads.
pub const RESOLVE_QUEUE_MAX: usize = 4 * 1024;
/// Waiters for names that are being looked up; two questions a connection of every core would be fewer.
pub const RESOLVE_WAITERS_MAX: usize = 64 * 1024;
/// Addresses of a name are used this long; getaddrinfo does not tell their time to live.
pub const RESOLVE_FOUND_KEPT: Duration = Duration::from_secs(30);
/// "No such name" is believed this long: a name that a job has just made must soon be seen.
pub const RESOLVE_NOT_FOUND_KEPT: Duration = Duration::from_secs(5);
/// A failure of the resolver is believed this long: enough to calm a storm of retries, and no longer.
pub const RESOLVE_FAILED_KEPT: Duration = Duration::from_secs(1);
/// How long `stop` waits for a resolver thread that is inside getaddrinfo.
pub const RESOLVE_STOP_GRACE: Duration = Duration::from_millis(100);
/// Names in the resolver's cache.
pub const RESOLVE_CACHE_MAX: usize = 4 * 1024;
/// Addresses of one name that are kept and tried.
pub const ADDRESSES_PER_NAME_MAX: usize = 16;
/// Idle upstream connections kept a core, over all hosts.
pub const POOL_IDLE_MAX: usize = 256;
/// Idle upstream connections kept a core and host.
pub const POOL_IDLE_PER_HOST_MAX: usize = 32;
/// An idle upstream connection is dropped after this; most servers close at 5 s to 75 s.
pub const POOL_IDLE: Duration = Duration::from_secs(30);
/// Bytes of one policy file.
pub const POLICY_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of one PEM file that a policy names. A whole system bundle is about 250 KiB.
pub const PEM_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of one secret that a policy refers to; it becomes a header field, and that must fit into a head.
pub const SECRET_BYTES_MAX: usize = 8 * 1024;

/// Bytes of a relay buffer; taken from a core's pool only while bytes are there.
pub const RELAY_BUFFER_BYTES: usize = 64 * 1024;
/// Bytes that a direction copies before it changes to splice; small exchanges never pay for a pipe.
pub const SPLICE_AFTER_BYTES: u64 = 256 * 1024;
/// Pipe sizes that a bulk direction grows through, bytes.
pub const PIPE_BYTES: [usize; 3] = [64 * 1024, 256 * 1024, 1024 * 1024];
/// Bytes of all pipes of the process; an unprivileged user has 64 MiB in all (pipe(7), pipe-user-pages-soft).
pub const PIPE_BUDGET_BYTES: usize = 48 * 1024 * 1024;
/// Bytes that one direction moves before others get their turn.
pub const TURN_BYTES_MAX: usize = 1024 * 1024;

const _: () = {
    assert!(FIRST_LINE_BYTES_MAX < HEAD_BYTES_MAX);
    assert!(SECRET_BYTES_MAX * 2 < HEAD_BYTES_MAX);
    assert!(CHUNK_LINE_BYTES_MAX < TRAILER_BYTES_MAX && TRAILER_BYTES_MAX < HEAD_BYTES_MAX);
    assert!(HEAD_BYTES_MAX <= RELAY_BUFFER_BYTES && HELLO_BYTES_MAX <= RELAY_BUFFER_BYTES);
    assert!(MAILBOX_LETTERS_MAX >= 2 * CONNECTIONS_PER_CORE_MAX + ACCEPT_BATCH_MAX);
    // One path and seven texts (job, verb, target, rule, reason, parent, and a run's own), plus fixed members.
    assert!(6 * (RECORD_PATH_BYTES_MAX + 7 * RECORD_TEXT_BYTES_MAX) + 1024 < JOURNAL_LINE_BYTES_MAX);
    assert!(JOURNAL_LINE_BYTES_MAX < JOURNAL_BATCH_BYTES);
    assert!(RESOLVE_FAILED_KEPT.as_secs() <= RESOLVE_NOT_FOUND_KEPT.as_secs());
    assert!(RESOLVE_NOT_FOUND_KEPT.as_secs() <= RESOLVE_FOUND_KEPT.as_secs());
    assert!(POOL_IDLE_PER_HOST_MAX <= POOL_IDLE_MAX);
    assert!(CONNECT_DEADLINE.as_secs() <= DIAL_DEADLINE.as_secs());
    assert!(
        PIPE_BYTES[0] < PIPE_BYTES[1] && PIPE_BYTES[1] < PIPE_BYTES[2] && PIPE_BYTES[2] < PIPE_BUDGET_BYTES
    );
};
