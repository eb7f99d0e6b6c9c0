//! Any text as a policy file.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| engine::policy::config::fuzz(data));
