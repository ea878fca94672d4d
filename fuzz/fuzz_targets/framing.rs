//! libFuzzer's entry to the target `framing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hapax_fuzz::framing(data));
