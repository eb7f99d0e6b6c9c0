//! Every committed input through its fuzz function, on a stable compiler: `cargo test` in this directory.

use std::fs;
use std::path::Path;

type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 5] = [
    ("authority", engine::wire::target::fuzz),
    ("body_chunked", engine::wire::body::fuzz),
    ("head_request", engine::wire::head::fuzz_request),
    ("head_response", engine::wire::head::fuzz_response),
    ("sniff_hello", |data| {
        engine::wire::sniff::fuzz(data);
        engine::wire::hello::fuzz(data);
    }),
];

#[test]
fn committed_inputs_hold() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (target, fuzz) in TARGETS {
        let inputs: Vec<_> =
            fs::read_dir(corpus.join(target)).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(inputs.len() >= 5, "{target} has {} inputs", inputs.len());
        for input in inputs {
            println!("{}", input.display());
            let data = fs::read(&input).unwrap();
            // As committed, cut anywhere, and with something behind.
            for end in 0..=data.len() {
                fuzz(&data[..end]);
            }
            fuzz(&[data.as_slice(), b"\r\n\r\nx"].concat());
        }
    }
}
