//! The first bytes of a tunnel and the ClientHello; the properties stand in `wire::sniff` and `wire::hello`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    engine::wire::sniff::fuzz(data);
    engine::wire::hello::fuzz(data);
});
