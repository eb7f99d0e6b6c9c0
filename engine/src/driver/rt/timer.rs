//! A timer of this core, as a descriptor.
//!
//! Not the runtime's own timers: those are looked at only when a core has nothing else to do, so one busy tunnel
//! would stop every clock of its core. A timerfd is ready like any other descriptor. For the few tasks that a core
//! has; connections have alarms.

use std::io;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use super::Source;

/// A monotonic timer that is off until it is asked.
pub(crate) struct Timer {
    source: Source,
}

impl Timer {
    pub(crate) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        Ok(Self { source: Source::new(timerfd_create(TimerfdClockId::Monotonic, flags)?)? })
    }

    /// Expires every `period` from now on.
    pub(crate) fn every(&self, period: Duration) -> io::Result<()> {
        self.set(period, period)
    }

    /// Waits until the timer has expired; once for all expiries that were missed.
    pub(crate) async fn expired(&self) -> io::Result<()> {
        self.source.readable().await?;
        rustix::io::read(&self.source, &mut [0; 8])?;
        Ok(())
    }

    /// Waits for `time`; replaces a period.
    pub(crate) async fn after(&self, time: Duration) -> io::Result<()> {
        self.set(time, Duration::ZERO)?;
        self.expired().await
    }

    fn set(&self, value: Duration, interval: Duration) -> io::Result<()> {
        let timespec = |time: Duration| {
            let tv_sec = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
            Timespec { tv_sec, tv_nsec: i64::from(time.subsec_nanos()) }
        };
        let to = Itimerspec { it_interval: timespec(interval), it_value: timespec(value) };
        timerfd_settime(&self.source, TimerfdTimerFlags::empty(), &to)?;
        Ok(())
    }
}
