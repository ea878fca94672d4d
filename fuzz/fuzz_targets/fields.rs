//! libFuzzer's entry to the target `fields`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hapax_fuzz::fields(data));
