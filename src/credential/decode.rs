//! Base64 as Basic uses it (RFC 4648 §4), strict about alphabet, padding and unused bits: one pair has one spelling.
//!
//! By hand, since nearly every request passes here: the crate's decoder takes three times the instructions.

/// What a digit stands for at each of the four places; what is no digit has a bit beyond the 24 of all four.
const PLACES: [[u32; 256]; 4] = {
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut places = [[NO_DIGIT; 256]; 4];
    let mut value = 0;
    while value < digits.len() {
        let mut place = 0;
        while place < 4 {
            places[place][digits[value] as usize] = (value as u32) << (18 - 6 * place);
            place += 1;
        }
        value += 1;
    }
    places
};

const NO_DIGIT: u32 = 1 << 24;

/// Decodes to the start of `decoded`, and says how much it was. Where it is none, or there is no room for it, some of it
/// may have been decoded all the same.
pub(super) fn base64(encoded: &[u8], decoded: &mut [u8]) -> Option<usize> {
    let padding = encoded.iter().rev().take(2).take_while(|&&byte| byte == b'=').count();
    let digits = &encoded[..encoded.len() - padding];
    let length = digits.len() / 4 * 3 + (digits.len() % 4).saturating_sub(1);
    let decoded = decoded.get_mut(..length)?;
    let value = |place: usize, digit: u8| PLACES[place][usize::from(digit)];
    let four = |&[a, b, c, d]: &[u8; 4]| value(0, a) | value(1, b) | value(2, c) | value(3, d);
    // Whether all are digits is asked once, at the end: asking each of them takes longer.
    let mut seen = 0;
    // Eight at a time as long as two more bytes follow theirs, since eight bytes are written at once.
    let (eights, digits) = digits.split_at(digits.len().saturating_sub(3) / 8 * 8);
    for (place, eight) in eights.as_chunks::<8>().0.iter().enumerate() {
        let ([high, low], _) = eight.as_chunks::<4>() else { return None };
        let (high, low) = (four(high), four(low));
        seen |= high | low;
        let bits = u64::from(high) << 40 | u64::from(low) << 16;
        decoded[place * 6..][..8].copy_from_slice(&bits.to_be_bytes());
    }
    let (fours, rest) = digits.as_chunks::<4>();
    let (threes, end) = decoded[eights.len() / 4 * 3..].as_chunks_mut::<3>();
    for (digits, three) in fours.iter().zip(threes) {
        let bits = four(digits);
        seen |= bits;
        [_, three[0], three[1], three[2]] = bits.to_be_bytes();
    }
    let unused = match (rest, end, padding) {
        ([], [], 0) => 0,
        (&[a, b], [first], 2) => {
            let bits = value(0, a) | value(1, b);
            seen |= bits;
            let [_, decoded, unused @ ..] = bits.to_be_bytes();
            *first = decoded;
            u16::from_be_bytes(unused)
        }
        (&[a, b, c], [first, second], 1) => {
            let bits = value(0, a) | value(1, b) | value(2, c);
            seen |= bits;
            let unused;
            [_, *first, *second, unused] = bits.to_be_bytes();
            unused.into()
        }
        _ => return None,
    };
    (seen < NO_DIGIT && unused == 0).then_some(length)
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::STANDARD};
    use proptest::prelude::*;

    use super::*;

    /// Decodes as the crate does, or not at all where that does not.
    #[track_caller]
    fn check(encoded: &[u8]) {
        let mut decoded = [0; 64];
        let length = base64(encoded, &mut decoded);
        let expected = STANDARD.decode(encoded).ok();
        assert_eq!(length.map(|length| &decoded[..length]), expected.as_deref(), "{}", encoded.escape_ascii());
    }

    #[test]
    fn every_ending_is_judged_as_the_crate_judges_it() {
        for encoded in ["", "=", "==", "===", "====", "A", "AA", "AAA", "A=", "A==", "A===", "AA=", "AAAA="] {
            check(encoded.as_bytes());
        }
        for last in 0..=u8::MAX {
            for ending in [vec![last, b'=', b'='], vec![b'A', last, b'='], vec![b'A', b'A', last]] {
                check(&[b"YWJjZ".as_slice(), &ending].concat());
                check(&[b"Y".as_slice(), &ending].concat());
            }
        }
    }

    #[test]
    fn what_has_no_room_is_none() {
        assert_eq!(base64(b"YWJj", &mut [0; 2]), None);
        assert_eq!(base64(b"YWJj", &mut [0; 3]), Some(3));
        assert_eq!(base64(b"YWI=", &mut [0; 1]), None);
        assert_eq!(base64(b"YWI=", &mut [0; 2]), Some(2));
    }

    /// Nothing is written behind what was decoded, or beyond the room.
    #[test]
    fn every_length_fits_where_it_just_has_room() {
        let bytes: Vec<u8> = (0..64).collect();
        for length in 0..bytes.len() {
            let encoded = STANDARD.encode(&bytes[..length]);
            let mut decoded = vec![0xff; length];
            assert_eq!(base64(encoded.as_bytes(), &mut decoded), Some(length));
            assert_eq!(decoded, bytes[..length]);
            let mut roomy = vec![0xff; length + 8];
            assert_eq!(base64(encoded.as_bytes(), &mut roomy), Some(length));
            assert_eq!(roomy, [&bytes[..length], &[0xff; 8]].concat());
            if let Some(less) = length.checked_sub(1) {
                assert_eq!(base64(encoded.as_bytes(), &mut decoded[..less]), None);
            }
        }
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(bytes in prop::collection::vec(any::<u8>(), 0..48)) {
            let encoded = STANDARD.encode(&bytes);
            let mut decoded = [0; 48];
            let length = base64(encoded.as_bytes(), &mut decoded);
            prop_assert_eq!(length.map(|length| &decoded[..length]), Some(&*bytes));
        }

        #[test]
        fn anything_else_is_judged_as_the_crate_judges_it(encoded in "[A-Za-z0-9+/=_ -]{0,24}") {
            check(encoded.as_bytes());
        }
    }
}
