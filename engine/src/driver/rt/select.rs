//! Waiting for more than one thing at once.
//!
//! Plain structs, not async functions: those would hold each future twice, once as an argument and once pinned,
//! and a tunnel waits three deep.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

/// Two outputs of different kinds.
pub(crate) enum Either<A, B> {
    /// The first was ready.
    Left(A),
    /// The second was.
    Right(B),
}

/// Waits for whichever is ready first, `a` before `b`; the other is dropped with the result.
pub(crate) fn race<A: Future, B: Future>(a: A, b: B) -> Race<A, B> {
    Race { a, b }
}

pin_project! {
    /// See `race`.
    pub(crate) struct Race<A, B> {
        #[pin]
        a: A,
        #[pin]
        b: B,
    }
}

impl<A: Future, B: Future> Future for Race<A, B> {
    type Output = Either<A::Output, B::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(output) = this.a.poll(cx) {
            return Poll::Ready(Either::Left(output));
        }
        this.b.poll(cx).map(Either::Right)
    }
}

/// Waits for both, or for the first error.
pub(crate) fn both<E, A, B>(a: A, b: B) -> Both<A, B>
where
    A: Future<Output = Result<(), E>>,
    B: Future<Output = Result<(), E>>,
{
    Both { a, a_done: false, b, b_done: false }
}

pin_project! {
    /// See `both`.
    pub(crate) struct Both<A, B> {
        #[pin]
        a: A,
        a_done: bool,
        #[pin]
        b: B,
        b_done: bool,
    }
}

impl<E, A, B> Future for Both<A, B>
where
    A: Future<Output = Result<(), E>>,
    B: Future<Output = Result<(), E>>,
{
    type Output = Result<(), E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if !*this.a_done
            && let Poll::Ready(output) = this.a.poll(cx)
        {
            output?;
            *this.a_done = true;
        }
        if !*this.b_done
            && let Poll::Ready(output) = this.b.poll(cx)
        {
            output?;
            *this.b_done = true;
        }
        if *this.a_done && *this.b_done { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::pin::pin;
    use std::task::Waker;

    use super::*;

    fn poll<F: Future>(future: F) -> Poll<F::Output> {
        pin!(future).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn the_first_wins_where_both_are_ready() {
        assert!(matches!(poll(race(ready(1), ready(2))), Poll::Ready(Either::Left(1))));
        assert!(matches!(poll(race(pending::<()>(), ready(2))), Poll::Ready(Either::Right(2))));
    }

    #[test]
    fn an_error_does_not_wait_for_the_other() {
        assert!(matches!(poll(both(pending(), ready(Err(1)))), Poll::Ready(Err(1))));
        assert!(poll(both(ready(Ok::<(), ()>(())), pending())).is_pending());
        assert!(matches!(poll(both(ready(Ok::<(), ()>(())), ready(Ok(())))), Poll::Ready(Ok(()))));
    }
}
