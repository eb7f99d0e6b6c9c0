//! What do the parsers of `wire` cost? One question a group; each answer is checked before it is timed.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use engine::wire::Step;
use engine::wire::body::Body;
use engine::wire::head::forward::{ForwardAs, write_request, write_response};
use engine::wire::head::{Framing, HeadScan, Method, Request, Response};
use engine::wire::hello::{Hello, HelloReader};
use engine::wire::target::Authority;

const NPM_GET: &[u8] = b"GET http://npm.test/@types%2fnode HTTP/1.1\r\n\
    connection: keep-alive\r\nuser-agent: npm/11.6.2 node/v24.11.1 linux x64 workspaces/false\r\nnpm-in-ci: true\r\n\
    pacote-version: 21.0.3\r\npacote-req-type: packument\r\npacote-pkg-id: registry:@types/node\r\nnpm-command: ci\r\n\
    accept: application/vnd.npm.install-v1+json; q=1.0, application/json; q=0.8, */*\r\n\
    accept-encoding: gzip,deflate\r\nHost: npm.test\r\n\r\n";
const CONNECT: &[u8] =
    b"CONNECT registry.test:443 HTTP/1.1\r\nHost: registry.test:443\r\nUser-Agent: curl/8.14.1\r\n\
    Proxy-Connection: Keep-Alive\r\n\r\n";
const RESPONSE: &[u8] =
    b"HTTP/1.1 200 OK\r\nDate: Sat, 21 Nov 2026 10:00:00 GMT\r\nContent-Type: application/octet-stream\r\n\
    Content-Length: 10240\r\nConnection: keep-alive\r\nETag: \"b5f1e2e5f4a9ad12aa6e46f7e7a2a6e1\"\r\n\
    Last-Modified: Fri, 20 Nov 2026 10:00:00 GMT\r\nCache-Control: public, immutable, max-age=31557600\r\n\
    Accept-Ranges: bytes\r\nVary: Accept-Encoding\r\nServer: test\r\n\r\n";

/// What does it cost to find, read and rewrite the head of a request?
fn requests(c: &mut Criterion) {
    let mut group = c.benchmark_group("request");
    for (name, head) in [("npm_get", NPM_GET), ("connect", CONNECT)] {
        assert_eq!(HeadScan::new().scan(head), Ok(Step::Done(head.len())));
        let request = Request::parse(head).expect("a good head");
        assert_eq!(request.host.map(|host| host.of(head).starts_with(b"npm.test")), Some(name == "npm_get"));
        group.throughput(Throughput::Bytes(head.len() as u64));
        group.bench_function(format!("{name}/scan"), |b| b.iter(|| HeadScan::new().scan(black_box(head))));
        group.bench_function(format!("{name}/parse"), |b| b.iter(|| Request::parse(black_box(head))));
    }
    let request = Request::parse(NPM_GET).expect("a good head");
    let mut out = Vec::with_capacity(1024);
    write_request(NPM_GET, &request, ForwardAs::Origin, true, &[], &mut out);
    assert!(out.starts_with(b"GET /@types%2fnode HTTP/1.1\r\nuser-agent: npm"));
    group.throughput(Throughput::Bytes(NPM_GET.len() as u64));
    group.bench_function("npm_get/forward", |b| {
        b.iter(|| {
            out.clear();
            write_request(black_box(NPM_GET), &request, ForwardAs::Origin, true, &[], &mut out);
            out.len()
        });
    });
}

/// What does it cost to find, read and rewrite the head of a response?
fn responses(c: &mut Criterion) {
    let mut group = c.benchmark_group("response");
    group.throughput(Throughput::Bytes(RESPONSE.len() as u64));
    let response = Response::parse(RESPONSE, &Method::Get).expect("a good head");
    assert_eq!(response.framing, Framing::Length(10_240));
    group.bench_function("scan", |b| b.iter(|| HeadScan::new().scan(black_box(RESPONSE))));
    group.bench_function("parse", |b| b.iter(|| Response::parse(black_box(RESPONSE), &Method::Get)));
    let mut out = Vec::with_capacity(1024);
    group.bench_function("forward", |b| {
        b.iter(|| {
            out.clear();
            write_response(black_box(RESPONSE), &response, true, &[], &mut out);
            out.len()
        });
    });
    assert!(out.starts_with(b"HTTP/1.1 200 OK\r\nDate"));
}

/// What does it cost to follow a chunked body of 64 KiB, in chunks of 8 KiB and of 64 bytes?
fn bodies(c: &mut Criterion) {
    let mut group = c.benchmark_group("body");
    for chunk in [8192, 64] {
        let mut body = format!("{chunk:x}\r\n{}\r\n", "x".repeat(chunk)).repeat(64 * 1024 / chunk);
        body.push_str("0\r\n\r\n");
        let follow =
            |bytes: &[u8]| Body::new(Framing::Chunked).advance(bytes).map(|progress| progress.consumed);
        assert_eq!(follow(body.as_bytes()), Ok(body.len()));
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(format!("chunked_{chunk}"), |b| b.iter(|| follow(black_box(body.as_bytes()))));
    }
}

/// What does it cost to read a ClientHello of about 1.8 KB, whole and in two segments?
fn hellos(c: &mut Criterion) {
    let mut group = c.benchmark_group("hello");
    let hello = client_hello();
    assert!((1700..1900).contains(&hello.len()));
    let read = |parts: &[&[u8]]| {
        let mut reader = HelloReader::new();
        parts.iter().map(|part| reader.push(part)).last()
    };
    let name = |answer: Option<_>| match answer {
        Some(Ok(Step::Done(Hello { sni: Some(host), .. }))) => host.to_string(),
        other => format!("{other:?}"),
    };
    let (front, back) = hello.split_at(1400);
    assert_eq!(name(read(&[&hello])), "registry.test");
    assert_eq!(name(read(&[front, back])), "registry.test");
    group.throughput(Throughput::Bytes(hello.len() as u64));
    group.bench_function("whole", |b| b.iter(|| read(&[black_box(&hello)])));
    group.bench_function("two_segments", |b| b.iter(|| read(&[black_box(front), black_box(back)])));
}

/// What does it cost to bring the target of a CONNECT to its canonical form?
fn authorities(c: &mut Criterion) {
    let mut group = c.benchmark_group("authority");
    for (name, text) in
        [("name", "Registry.Packages.test:443"), ("ipv4", "203.0.113.10:8080"), ("ipv6", "[2001:db8::1]:443")]
    {
        let canonical = Authority::connect(text.as_bytes()).expect("a good target").to_string();
        assert_eq!(canonical, text.to_ascii_lowercase());
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(name, |b| b.iter(|| Authority::connect(black_box(text.as_bytes()))));
    }
}

/// A hello of the shape that clients with a post-quantum share send.
fn client_hello() -> Vec<u8> {
    let sized = |bytes: &[u8]| [&u16::try_from(bytes.len()).expect("short").to_be_bytes(), bytes].concat();
    let extension = |kind: u16, data: &[u8]| [&kind.to_be_bytes(), sized(data).as_slice()].concat();
    let extensions = [
        extension(0, &sized(&[&[0], sized(b"registry.test").as_slice()].concat())),
        extension(11, &[1, 0]),
        extension(10, &sized(&[0x11, 0xec, 0, 29, 0, 23, 0, 30, 0, 24])),
        extension(35, &[]),
        extension(16, &sized(b"\x02h2\x08http/1.1")),
        extension(22, &[]),
        extension(23, &[]),
        extension(13, &sized(&[4; 48])),
        extension(43, &[4, 3, 4, 3, 3]),
        extension(45, &[1, 1]),
        extension(
            51,
            &sized(&[&[0x11, 0xec], sized(&[7; 1216]).as_slice(), &[0, 29], &sized(&[8; 32])].concat()),
        ),
        extension(21, &[0; 190]),
    ];
    let suites = sized(&[0x13; 62]);
    let session = [&[32][..], &[9; 32]].concat();
    let body = [&[3, 3][..], &[5; 32], &session, &suites, &[1, 0], &sized(&extensions.concat())].concat();
    [&[22, 3, 1][..], &sized(&[&[1, 0], sized(&body).as_slice()].concat())].concat()
}

criterion_group!(wire, requests, responses, bodies, hellos, authorities);
criterion_main!(wire);
