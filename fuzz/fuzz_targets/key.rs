//! libFuzzer's entry to the target `key`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hapax_fuzz::key(data));
