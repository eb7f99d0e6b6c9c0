//! Request heads, found, parsed and forwarded; the properties stand in `wire::head`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    engine::wire::head::fuzz_request(data);
});
