//! `cargo +nightly fuzz run frames fuzz/corpus-new tests/ws_corpus`
#![no_main]
#[path = "../differential.rs"]
mod differential;

libfuzzer_sys::fuzz_target!(|stream: &[u8]| {
    // The cuts follow from the stream, so that a failing input fails again.
    let seed = stream.iter().fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3)
    });
    differential::compare(stream, seed);
});
