//! The control of the fuzzing itself: fails on eight bytes, each of which is a step that only coverage tells from no step.
//! Blind mutations would need 2⁶⁴ tries, and no comparison gives a byte away.
#![no_main]

use std::hint::black_box;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    // Known to be undone by nobody who only sees both sides of the comparison.
    let is = |at: usize, expected: u8| {
        let scrambled = |byte: u8| black_box(byte.wrapping_mul(167).rotate_left(3) ^ 0x5a);
        data.get(at)
            .is_some_and(|byte| scrambled(*byte) == scrambled(expected))
    };
    // Nested and not a loop: each step has to be a branch of its own.
    if is(0, b'h') {
        if is(1, b'a') {
            if is(2, b'p') {
                if is(3, b'a') {
                    if is(4, b'x') {
                        if is(5, b'!') {
                            if is(6, b'4') {
                                if is(7, b'2') {
                                    panic!("the control is found");
                                }
                            }
                        }
                    }
                }
            }
        }
    }
});
