//! [`Mask::apply`] in arbitrary pieces against RFC 6455 section 5.3 to the letter: octet i of the payload is XORed with
//! octet i modulo 4 of the key. The eight-byte steps, the rest of a piece and the turned key between pieces are all
//! ours, and the pieces start at any alignment.
#![no_main]

use libfuzzer_sys::fuzz_target;
use parlor::wire::mask::Mask;
use parlor_fuzz::Cuts;

fuzz_target!(|input: &[u8]| {
    let (cuts, rest) = Cuts::take(input);
    let Some((&key, payload)) = rest.split_first_chunk::<4>() else { return };
    let mut masked = payload.to_vec();
    let mut mask = Mask::new(key);
    for piece in cuts.pieces(&mut masked) {
        mask.apply(piece);
    }
    let by_the_byte: Vec<u8> = payload.iter().enumerate().map(|(i, byte)| byte ^ key[i % 4]).collect();
    assert_eq!(masked, by_the_byte);
});
