//! Bytes of any kind as a journal, and as the tail of one.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| engine::audit::verify::fuzz(data));
