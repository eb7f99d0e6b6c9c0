//! Log lines of the daemon's main thread: to stderr, wherever that leads.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

/// Writes one line with the time in front; one write(2), so that lines stay whole. A log that cannot be written
/// stops nothing.
pub fn line(text: &str) {
    let line = format!("{} weir: {}\n", utc(now_us()), text.replace(['\n', '\r'], " "));
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// Unix time in microseconds.
pub fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// A point in time, given as Unix time in microseconds, as people write it: `2026-01-31T12:00:00Z`.
pub fn utc(us: u64) -> String {
    let seconds = us / 1_000_000;
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    // Days to a civil date: years that begin in March have their leap day last, and 400 of them have 146,097 days.
    let days = seconds / 86_400 + 719_468;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = days / 146_097 * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_agree_with_date_1() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(utc(seconds * 1_000_000 + 7), text);
        }
    }
}
