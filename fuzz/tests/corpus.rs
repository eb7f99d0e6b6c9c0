//! Every committed input through its fuzz function, on a stable compiler: `cargo test` in this directory.

use std::fs;
use std::path::Path;

type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 7] = [
    ("authority", engine::wire::target::fuzz),
    ("body_chunked", engine::wire::body::fuzz),
    ("head_request", engine::wire::head::fuzz_request),
    ("head_response", engine::wire::head::fuzz_response),
    ("journal_tail", engine::audit::verify::fuzz),
    ("policy_file", engine::policy::config::fuzz),
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
            // Long texts are cut at a sample of places: their functions parse all of it each time.
            for end in (0..=data.len()).step_by(1 + data.len() / 2048) {
                fuzz(&data[..end]);
            }
            fuzz(&[data.as_slice(), b"\r\n\r\nx"].concat());
        }
    }
}
