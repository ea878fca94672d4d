//! libFuzzer's entry to the target `canonical`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hapax_fuzz::canonical(data));
