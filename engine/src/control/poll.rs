//! poll(2) with a `Duration`: the one way in which the main threads wait.

use std::io;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// Waits until one of `fds` is ready, a signal arrives, or the time is over (`None`: never). Answers how many are
/// ready.
///
/// # Errors
/// When the kernel has no memory for it.
pub fn wait(fds: &mut [PollFd<'_>], time: Option<Duration>) -> io::Result<usize> {
    // What does not fit is far more than a lifetime.
    let time = time.map(|time| Timespec::try_from(time).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 }));
    match poll(fds, time.as_ref()) {
        Ok(ready) => Ok(ready),
        Err(Errno::INTR) => Ok(0),
        Err(errno) => Err(errno.into()),
    }
}

/// Waits until `fd` is readable; false when `time` is over first.
pub fn readable(fd: impl std::os::fd::AsFd, time: Duration) -> bool {
    let until = Instant::now() + time;
    loop {
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        match wait(&mut fds, Some(until.saturating_duration_since(Instant::now()))) {
            Ok(1..) => return true,
            Ok(0) if Instant::now() < until => {}
            Ok(0) | Err(_) => return false,
        }
    }
}

/// Asks `question` again and again, `every` so often, until it answers or the time is over. For what has no event
/// to wait for: a lock that becomes free, a state file that appears.
pub fn ask_until<T>(until: Instant, every: Duration, mut question: impl FnMut() -> Option<T>) -> Option<T> {
    loop {
        if let Some(answer) = question() {
            return Some(answer);
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        let _ = wait(&mut [], Some(every.min(left)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_asked_once_more_when_time_is_over() {
        let mut asked = 0;
        let answer = ask_until(Instant::now(), Duration::from_secs(1), || {
            asked += 1;
            None::<()>
        });
        assert_eq!((answer, asked), (None, 1));
        let mut left = 3;
        let answer = ask_until(Instant::now() + Duration::from_secs(5), Duration::from_millis(1), || {
            left -= 1;
            (left == 0).then_some("yes")
        });
        assert_eq!(answer, Some("yes"));
    }

    #[test]
    fn a_pipe_is_readable_when_it_has_ended() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(!readable(&ours, Duration::from_millis(1)));
        drop(theirs);
        assert!(readable(&ours, Duration::from_secs(5)));
    }
}
