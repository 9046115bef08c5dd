//! `cargo +nightly fuzz run envelope fuzz/corpus-new tests/envelope_corpus`
#![no_main]
#[path = "../envelope.rs"]
mod envelope;

libfuzzer_sys::fuzz_target!(|text: &str| envelope::check(text));
