//! libFuzzer's entry to the target `admin`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hapax_fuzz::admin(data));
