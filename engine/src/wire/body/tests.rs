//! Bodies: where they end, what is refused, and that nothing of it is consumed.

use proptest::prelude::*;

use super::*;

fn chunked(data: &[u8]) -> Result<Option<usize>, BodyError> {
    fuzz(data);
    run(data, usize::MAX).1
}

#[test]
fn known_lengths_take_their_bytes_and_no_more() {
    let mut body = Body::new(Framing::Length(5));
    assert_eq!(body.advance(b"abc"), Ok(Progress { consumed: 3, done: false }));
    assert_eq!(body.finish(), Err(BodyError::CutShort));
    assert_eq!(body.advance(b"deGET"), Ok(Progress { consumed: 2, done: true }));
    assert_eq!(body.advance(b"GET"), Ok(Progress { consumed: 0, done: true }));
    assert_eq!(body.finish(), Ok(()));
    for framing in [Framing::None, Framing::Length(0)] {
        assert!(Body::new(framing).is_done());
    }
}

#[test]
fn until_close_ends_with_the_connection() {
    let mut body = Body::new(Framing::UntilClose);
    assert_eq!(body.advance(b"abc"), Ok(Progress { consumed: 3, done: false }));
    assert_eq!(body.finish(), Ok(()));
    assert!(body.is_done());
}

#[test]
fn opaque_bytes_may_be_moved_unseen() {
    let mut body = Body::new(Framing::Chunked);
    assert_eq!(body.opaque(), 0);
    assert_eq!(body.advance(b"a\r\n012"), Ok(Progress { consumed: 6, done: false }));
    assert_eq!(body.opaque(), 7);
    body.skip(3);
    assert_eq!(body.opaque(), 4);
    body.skip(4);
    assert_eq!(body.advance(b"\r\n0\r\n\r\n"), Ok(Progress { consumed: 7, done: true }));
    assert_eq!(Body::new(Framing::UntilClose).opaque(), u64::MAX);
}

#[test]
fn chunked_bodies_end_where_their_coding_says() {
    for body in [
        &b"0\r\n\r\n"[..],
        b"000\r\n\r\n",
        b"5\r\nhello\r\n0\r\n\r\n",
        b"5;a=b;c=\"d;e\"\r\nhello\r\nA\r\n0123456789\r\n0;x\r\nServer-Timing: a\r\nX:\r\n\r\n",
        b"2\r\n\r\n\r\n0\r\n\r\n",
        b"0;a;b=c;d=\"\";e = \"x\\\"y\"; f\r\n\r\n",
    ] {
        assert_eq!(chunked(body), Ok(Some(body.len())), "{}", body.escape_ascii());
        assert_eq!(chunked(&[body, b"GET / HTTP/1.1"].concat()), Ok(Some(body.len())), "junk behind");
        for len in 0..body.len() {
            assert_eq!(chunked(&body[..len]), Ok(None), "{} of {}", len, body.escape_ascii());
        }
    }
}

#[test]
fn broken_codings_are_refused() {
    use BodyError::*;
    for (body, error) in [
        (&b"g\r\n"[..], ChunkSize),
        (b"\r\n", ChunkSize),
        (b";a\r\n", ChunkSize),
        (b"+5\r\nhello", ChunkSize),
        (b"-5\r\n", ChunkSize),
        (b"0x5\r\n", ChunkSize),
        (b" 5\r\n", ChunkSize),
        (b"5 \r\n", ChunkSize),
        (b"5 ;a\r\n", ChunkSize),
        (b"5\n", ChunkSize),
        (b"8000000000000000\r\n", ChunkSize),
        (b"fffffffffffffffff\r\n", ChunkSize),
        (b"00000000000000005\r\n", ChunkSize),
        (b"5\rx", ChunkLine),
        (b"5;a\0\r\n", ChunkLine),
        (b"5;a\n", ChunkLine),
        (b"5;\r\n", ChunkLine),
        (b"5;a=\r\n", ChunkLine),
        (b"5;=b\r\n", ChunkLine),
        (b"5;a b\r\n", ChunkLine),
        (b"5;a=\"b\r\n", ChunkLine),
        (b"5;a=\"b\\\"\r\n", ChunkLine),
        (b"5;a=\"b\"c\r\n", ChunkLine),
        (b"5\r\nhello0\r\n\r\n", ChunkEnd),
        (b"5\r\nhello\n0\r\n\r\n", ChunkEnd),
        (b"0\r\n\nx", Trailer),
        (b"0\r\n: x\r\n", Trailer),
        (b"0\r\nx : y\r\n", Trailer),
        (b"0\r\nx: y\r\n z\r\n", Trailer),
        (b"0\r\nGET / HTTP/1.1\r\n", Trailer),
        (b"0\r\nContent-Length: 5\r\n", TrailerForbidden),
        (b"0\r\ntransfer-encoding: chunked\r\n", TrailerForbidden),
        (b"0\r\nX: y\r\nHost: a\r\n", TrailerForbidden),
        (b"0\r\nAuthorization: a\r\n", TrailerForbidden),
        (b"0\r\nProxy-Foo: a\r\n", TrailerForbidden),
    ] {
        assert_eq!(chunked(body), Err(error), "{}", body.escape_ascii());
    }
}

#[test]
fn nothing_of_a_refused_line_is_consumed() {
    let good = b"5\r\nhello\r\n0\r\n".len();
    let (consumed, end) = run(b"5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n", 1);
    assert_eq!((consumed, end), (good, Err(BodyError::TrailerForbidden)));
    let (consumed, end) = run(b"5\r\nhello\r\n5;a=\"b\0\"\r\n", 1);
    assert_eq!((consumed, end), (b"5\r\nhello\r\n".len(), Err(BodyError::ChunkLine)));
}

#[test]
fn bounds_hold_to_the_byte() {
    let line = |len: usize| [&b"0;"[..], &vec![b'a'; len - 4], b"\r\n\r\n"].concat();
    assert_eq!(chunked(&line(CHUNK_LINE_BYTES_MAX)), Ok(Some(CHUNK_LINE_BYTES_MAX + 2)));
    assert_eq!(chunked(&line(CHUNK_LINE_BYTES_MAX + 1)), Err(BodyError::ChunkLineTooLong));
    assert_eq!(
        chunked(&line(CHUNK_LINE_BYTES_MAX + 1)[..CHUNK_LINE_BYTES_MAX]),
        Err(BodyError::ChunkLineTooLong)
    );

    let section = |len: usize| [&b"0\r\nX:"[..], &vec![b'a'; len - 6], b"\r\n\r\n"].concat();
    assert_eq!(chunked(&section(TRAILER_BYTES_MAX)), Ok(Some(TRAILER_BYTES_MAX + 3)));
    assert_eq!(chunked(&section(TRAILER_BYTES_MAX + 1)), Err(BodyError::TrailerTooLong));

    let lines = |count: usize| [&b"0\r\n"[..], &b"a:\r\n".repeat(count), b"\r\n"].concat();
    assert!(chunked(&lines(HEAD_FIELDS_MAX)).is_ok());
    assert_eq!(chunked(&lines(HEAD_FIELDS_MAX + 1)), Err(BodyError::TrailerTooLong));
}

proptest! {
    #[test]
    fn any_bytes(data in "([0-3]{1,2}(;[a=\"\t]{0,4})?\r\n.{0,3}(\r\n)?){0,3}(0\r\n)?([a-c]{0,2}: ?x?\r\n){0,3}(\r\n)?[\r\n]?") {
        fuzz(data.as_bytes());
    }

    #[test]
    fn good_bodies(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..5)) {
        let mut data = Vec::new();
        for chunk in &chunks {
            data.extend(format!("{:x}\r\n", chunk.len()).bytes());
            data.extend(chunk);
            data.extend(b"\r\n");
        }
        data.extend(b"0\r\n\r\n");
        prop_assert_eq!(chunked(&data), Ok(Some(data.len())));
    }
}
