//! ClientHellos, made here: what they say, how they may be cut, what is refused.

use proptest::prelude::*;

use super::*;

/// Bytes behind their length.
fn v8(bytes: &[u8]) -> Vec<u8> {
    [&[u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

fn v16(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes(), v16(data).as_slice()].concat()
}

fn sni(name: &[u8]) -> Vec<u8> {
    extension(SERVER_NAME, &v16(&[&[0], v16(name).as_slice()].concat()))
}

/// The body of a hello with these extensions.
fn body(extensions: &[u8]) -> Vec<u8> {
    [&[3, 3][..], &[7; 32], &v8(&[9; 32]), &v16(&[0x13, 1, 0x13, 2]), &v8(&[0]), &v16(extensions)].concat()
}

/// A handshake message of type 1.
fn message(body: &[u8]) -> Vec<u8> {
    [&[1, 0][..], &v16(body)].concat()
}

/// The message in records of at most `size` bytes.
fn records(message: &[u8], size: usize) -> Vec<u8> {
    message.chunks(size).flat_map(|part| [&[22, 3, 1][..], &v16(part)].concat()).collect()
}

fn read(stream: &[u8]) -> Result<Step<Hello>, HelloError> {
    fuzz(stream);
    HelloReader::new().push(stream)
}

/// The answer to a hello with these extensions in one record.
fn with(extensions: &[u8]) -> Result<Hello, HelloError> {
    match read(&records(&message(&body(extensions)), RECORD_BYTES_MAX))? {
        Step::Done(hello) => Ok(hello),
        Step::More => panic!("a whole hello says More"),
    }
}

fn full() -> Vec<u8> {
    let ech = [&[0, 0, 1, 0, 1, 5][..], &v16(&[1; 32]), &v16(&[2; 100])].concat();
    [
        extension(0x0a0a, &[]),
        sni(b"WWW.a.test"),
        extension(ALPN, &v16(&[v8(b"h2"), v8(b"http/1.1")].concat())),
        extension(SUPPORTED_VERSIONS, &v8(&[0x0a, 0x0a, 3, 4, 3, 3])),
        extension(ENCRYPTED_CLIENT_HELLO, &ech),
        extension(51, &[5; 1216]),
        extension(0x1a1a, &[0]),
    ]
    .concat()
}

#[test]
fn a_hello_says_what_it_offers() {
    let hello = with(&full()).unwrap();
    assert_eq!(hello.sni, Some(Host::Name("www.a.test".into())));
    assert_eq!(hello.alpn.iter().collect::<Vec<_>>(), [&b"h2"[..], b"http/1.1"]);
    assert_eq!(hello.ech, Ech::Present);
    assert_eq!(hello.versions, [0x0a0a, 0x0304, 0x0303]);
    assert_eq!(hello.records, 1);
}

#[test]
fn a_hello_without_extensions_passes() {
    let bare = [&[3, 1][..], &[7; 32], &v8(&[]), &v16(&[0, 5]), &v8(&[0])].concat();
    for body in [bare.clone(), [bare, v16(&[])].concat()] {
        let Ok(Step::Done(hello)) = read(&records(&message(&body), 99)) else { panic!("refused") };
        assert_eq!((hello.sni, hello.ech, hello.alpn.is_empty()), (None, Ech::Absent, true));
        assert_eq!(hello.versions, [0x0301]);
    }
}

#[test]
fn records_of_any_size_read_the_same() {
    let message = message(&body(&full()));
    for size in [1, 2, 3, 4, 5, 63, 500, message.len()] {
        let stream = records(&message, size);
        let Ok(Step::Done(hello)) = read(&stream) else { panic!("refused at {size}") };
        assert_eq!(hello.records, message.len().div_ceil(size));
        assert_eq!(hello.consumed, stream.len());
        assert_eq!(hello.sni, Some(Host::Name("www.a.test".into())));
    }
}

#[test]
fn every_prefix_wants_more() {
    for stream in [records(&message(&body(&full())), 100), records(&message(&body(&sni(b"a.test"))), 1)] {
        for len in 0..stream.len() {
            assert_eq!(HelloReader::new().push(&stream[..len]), Ok(Step::More), "{len}");
        }
    }
}

#[test]
fn what_follows_the_hello_is_not_looked_at() {
    let hello = message(&body(&sni(b"a.test")));
    let stream = records(&hello, 50);
    let with_junk = [stream.as_slice(), b"\0\0junk"].concat();
    assert_eq!(read(&with_junk), read(&stream));
    // Also in the record of its last byte.
    let Ok(Step::Done(answer)) = read(&records(&[hello.as_slice(), &[20, 0, 0]].concat(), 999)) else {
        panic!()
    };
    assert_eq!(answer.consumed, 5 + hello.len());
}

#[test]
fn server_names_are_canonical_or_errors() {
    use TargetError::*;
    let name = |text: &[u8]| with(&sni(text)).map(|hello| hello.sni.map(|host| host.to_string()));
    assert_eq!(name(b"A.Test."), Ok(Some("a.test".into())));
    assert_eq!(name(b"10.0.0.1"), Ok(Some("10.0.0.1".into())));
    assert_eq!(name(b"::1"), Ok(Some("[::1]".into())));
    for (text, error) in [
        (&b""[..], Empty),
        (b"[::1]", Bracket),
        (b"a\0.test", Byte(0)),
        (b"a.test:443", Byte(b':')),
        (b"127.1", Numeric),
        (b"a..test", EmptyLabel),
        (b"*.test", Byte(b'*')),
    ] {
        assert_eq!(name(text), Err(HelloError::ServerName(error)), "{}", text.escape_ascii());
    }
}

#[test]
fn malformed_extensions_are_refused() {
    use HelloError::*;
    let entry = [&[0], v16(b"a.test").as_slice()].concat();
    let ech = |first: u8, payload: &[u8]| {
        let outer = [&[first, 0, 1, 0, 1, 5][..], &v16(&[1; 32]), &v16(payload)].concat();
        extension(ENCRYPTED_CLIENT_HELLO, &outer)
    };
    for (extensions, error) in [
        ([sni(b"a.test"), sni(b"a.test")].concat(), DuplicateExtension(SERVER_NAME)),
        ([extension(9, &[]), extension(10, &[]), extension(9, &[1])].concat(), DuplicateExtension(9)),
        (extension(SERVER_NAME, &v16(&[entry.clone(), entry.clone()].concat())), ServerNameList),
        (extension(SERVER_NAME, &v16(&[])), ServerNameList),
        (extension(SERVER_NAME, &v16(&[&[1], v16(b"a.test").as_slice()].concat())), ServerNameList),
        (extension(SERVER_NAME, &[v16(&entry).as_slice(), &[0]].concat()), Length),
        (extension(SERVER_NAME, &[0, 9, 0, 0, 4, b'a']), Length),
        (extension(SERVER_NAME, &[]), Length),
        (extension(ALPN, &v16(&[])), Length),
        (extension(ALPN, &v16(&v8(&[]))), Length),
        (extension(ALPN, &v16(&[3, b'h'])), Length),
        (extension(ALPN, &[v16(&v8(b"h2")).as_slice(), &[0]].concat()), Length),
        (extension(SUPPORTED_VERSIONS, &v8(&[])), Length),
        (extension(SUPPORTED_VERSIONS, &v8(&[3, 4, 3])), Length),
        (ech(2, &[1]), Ech),
        (ech(0, &[]), Ech),
        (extension(ENCRYPTED_CLIENT_HELLO, &[1, 0]), Length),
        (extension(ENCRYPTED_CLIENT_HELLO, &[]), Length),
        (vec![0, 9, 0, 1], Length),
        (vec![0], Length),
    ] {
        assert_eq!(with(&extensions).map(|_| ()), Err(error), "{extensions:02x?}");
    }
    assert!(
        with(&extension(ENCRYPTED_CLIENT_HELLO, &[1])).is_ok_and(|hello| hello.ech == super::Ech::Present)
    );
}

#[test]
fn malformed_bodies_are_refused() {
    let good = body(&sni(b"a.test"));
    let mut old = good.clone();
    old[0] = 2;
    let mut session = good.clone();
    session[34] = 33;
    let odd_suites = [&[3, 3][..], &[7; 32], &v8(&[]), &v16(&[0, 5, 0]), &v8(&[0])].concat();
    let no_suites = [&[3, 3][..], &[7; 32], &v8(&[]), &v16(&[]), &v8(&[0])].concat();
    let no_compression = [&[3, 3][..], &[7; 32], &v8(&[]), &v16(&[0, 5]), &v8(&[])].concat();
    for (body, error) in [
        (old, HelloError::Version),
        (session, HelloError::Length),
        (odd_suites, HelloError::Length),
        (no_suites, HelloError::Length),
        (no_compression, HelloError::Length),
        ([good.as_slice(), &[0]].concat(), HelloError::Length),
        (good[..good.len() - 1].to_vec(), HelloError::Length),
        (Vec::new(), HelloError::Length),
    ] {
        assert_eq!(read(&records(&message(&body), 999)).map(|_| ()), Err(error), "{body:02x?}");
    }
}

#[test]
fn malformed_records_are_refused_at_once() {
    for (stream, error) in [
        (&[21_u8, 3, 1, 0, 2][..], HelloError::RecordType(21)),
        (b"GET / HTTP/1.1", HelloError::RecordType(b'G')),
        (&[0x80, 0x2e, 1, 3, 1], HelloError::Ssl2),
        (&[22, 2, 0], HelloError::RecordVersion),
        (&[22, 3, 1, 0, 0], HelloError::RecordLength),
        (&[22, 3, 1, 0x40, 1], HelloError::RecordLength),
        (&[22, 3, 1, 0, 9, 2], HelloError::MessageType(2)),
        (&[22, 3, 1, 0, 9, 1, 1, 0, 0], HelloError::TooLong),
        (&[22, 3, 1, 0, 1, 1, 22, 3, 1, 0, 0], HelloError::RecordLength),
        (&[22, 3, 1, 0, 1, 1, 20, 3, 3, 0, 1], HelloError::RecordType(20)),
        (&[22, 3, 1, 0, 1, 1, 0x80], HelloError::RecordType(0x80)),
    ] {
        assert_eq!(read(stream), Err(error), "{stream:02x?}");
    }
}

#[test]
fn the_bound_counts_the_whole_stream() {
    // One byte a record: six bytes of stream for each.
    let longest = HELLO_BYTES_MAX / 6;
    let padded = |len: usize| {
        let empty = message(&body(&extension(21, &[]))).len();
        records(&message(&body(&extension(21, &vec![0; len - empty]))), 1)
    };
    assert!(matches!(HelloReader::new().push(&padded(longest)), Ok(Step::Done(_))));
    assert_eq!(HelloReader::new().push(&padded(longest + 1)), Err(HelloError::TooLong));
}

#[test]
fn nothing_is_pushed_after_the_answer() {
    let mut reader = HelloReader::new();
    assert!(matches!(reader.push(&records(&message(&body(&[])), 99)), Ok(Step::Done(_))));
    assert_eq!(reader.push(&[]), Err(HelloError::Finished));
}

proptest! {
    #[test]
    fn any_bytes(data in prop::collection::vec(any::<u8>(), 0..60)) {
        fuzz(&data);
        fuzz(&records(&message(&data), 20));
        fuzz(&records(&message(&body(&data)), 33));
    }

    #[test]
    fn one_byte_off(at in any::<prop::sample::Index>(), byte in any::<u8>(), size in 1_usize..400) {
        let mut message = message(&body(&[sni(b"a.test"), extension(ALPN, &v16(&v8(b"h2")))].concat()));
        let at = at.index(message.len());
        message[at] = byte;
        fuzz(&records(&message, size));
    }
}
