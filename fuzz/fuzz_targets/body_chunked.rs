//! The chunked coding; the properties stand in `wire::body`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    engine::wire::body::fuzz(data);
});
