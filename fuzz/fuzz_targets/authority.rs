//! Hosts, authorities and absolute-form targets; the properties stand in `wire::target`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    engine::wire::target::fuzz(data);
});
