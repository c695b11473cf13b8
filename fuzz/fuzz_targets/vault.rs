//! See the function of this name in src/.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| postledger_fuzz::vault::check(bytes));
