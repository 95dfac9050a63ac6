//! Text to single values. Each function takes the whole text of a field or nothing.

/// `true`, `false`, `1` or `0`.
#[inline]
pub(super) fn boolean(text: &[u8]) -> Option<bool> {
    match text {
        b"true" | b"1" => Some(true),
        b"false" | b"0" => Some(false),
        _ => None,
    }
}

/// A whole number, with an optional sign.
#[inline]
pub(super) fn long(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || digits.len() > 18 {
        // 19 digits may overflow, and leading zeros may make a number longer still.
        return std::str::from_utf8(text).ok()?.parse().ok();
    }
    let mut value = 0i64;
    let mut wrong = false;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        wrong |= digit > 9;
        value = value * 10 + i64::from(digit & 0xf);
    }
    (!wrong).then_some(if negative { -value } else { value })
}

/// A whole number of 32 bits.
#[inline]
pub(super) fn int(text: &[u8]) -> Option<i32> {
    long(text).and_then(|value| i32::try_from(value).ok())
}

/// A finite number. NaN and infinities are refused: they break sums, and most readers of Avro do not expect them.
pub(super) fn double(text: &[u8]) -> Option<f64> {
    std::str::from_utf8(text).ok()?.parse().ok().filter(|value: &f64| value.is_finite())
}

/// A finite number of 32 bits.
pub(super) fn float(text: &[u8]) -> Option<f32> {
    std::str::from_utf8(text).ok()?.parse().ok().filter(|value: &f32| value.is_finite())
}

/// Whether it is a UUID in its canonical form, 8-4-4-4-12 hex digits of either case.
#[inline]
pub(super) fn is_uuid(text: &[u8]) -> bool {
    let Ok(text) = <&[u8; 36]>::try_from(text) else { return false };
    let mut right = true;
    for (at, byte) in text.iter().enumerate() {
        right &= if matches!(at, 8 | 13 | 18 | 23) { *byte == b'-' } else { byte.is_ascii_hexdigit() };
    }
    right
}

/// A UUID of 16 bytes in its canonical form.
pub(super) fn uuid_text(bytes: &[u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        for digit in [byte >> 4, byte & 0xf] {
            text.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
        }
    }
    text
}

/// Appends the bytes that hex digits of either case stand for. On `None`, some may have been appended.
pub(super) fn hex(text: &[u8], bytes: &mut Vec<u8>) -> Option<()> {
    let (pairs, rest) = text.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    for [high, low] in pairs {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        bytes.push((digit(*high)? << 4 | digit(*low)?) as u8);
    }
    Some(())
}

/// A decimal number such as `-12.50`, as its unscaled value. Digits beyond `scale` must be zeros.
pub(super) fn decimal(text: &[u8], precision: u8, scale: i8) -> Option<i128> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    let scale = usize::try_from(scale).ok()?;
    let mut value = 0i128;
    let mut decimals = None;
    let mut seen = false;
    for byte in digits {
        match (byte, decimals) {
            (b'.', None) => decimals = Some(0),
            (b'0', Some(count)) if count == scale => seen = true,
            (b'0'..=b'9', _) => {
                if decimals == Some(scale) {
                    return None;
                }
                seen = true;
                decimals = decimals.map(|count| count + 1);
                value = value.checked_mul(10)?.checked_add(i128::from(byte - b'0'))?;
            }
            _ => return None,
        }
    }
    for _ in decimals.unwrap_or(0)..scale {
        value = value.checked_mul(10)?;
    }
    let value = if negative { -value } else { value };
    (seen && fits(value, precision)).then_some(value)
}

/// Whether an unscaled decimal has at most `precision` digits.
pub(super) fn fits(value: i128, precision: u8) -> bool {
    10u128.checked_pow(u32::from(precision)).is_some_and(|limit| value.unsigned_abs() < limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_go_to_the_last_one_and_no_further() {
        assert_eq!(long(b"9223372036854775807"), Some(i64::MAX));
        assert_eq!(long(b"-9223372036854775808"), Some(i64::MIN));
        assert_eq!(long(b"9223372036854775808"), None);
        assert_eq!(long(b"00000000000000000000000000042"), Some(42));
        assert_eq!(long(b"+7"), Some(7));
        for wrong in ["", "-", "+", "1.0", "1e3", " 1", "1 ", "0x10", "--1", "1_000", "\u{0661}", "12:4", "1/2"] {
            assert_eq!(long(wrong.as_bytes()), None, "{wrong:?}");
        }
        assert_eq!(int(b"2147483647"), Some(i32::MAX));
        assert_eq!(int(b"-2147483648"), Some(i32::MIN));
        assert_eq!(int(b"2147483648"), None);
    }

    #[test]
    fn floats_are_finite() {
        assert_eq!(double(b"-1.5e3"), Some(-1500.0));
        assert_eq!(float(b"0.25"), Some(0.25));
        for wrong in ["NaN", "inf", "-Infinity", "1e999", "", "1,5"] {
            assert_eq!(double(wrong.as_bytes()), None, "{wrong}");
        }
        assert_eq!(float(b"1e39"), None);
    }

    #[test]
    fn a_uuid_is_canonical() {
        assert!(is_uuid(b"123e4567-e89b-12d3-a456-426614174000"));
        assert!(is_uuid(b"123E4567-E89B-12D3-A456-426614174000"));
        assert!(!is_uuid(b"123e4567e89b12d3a456426614174000"));
        assert!(!is_uuid(b"{23e4567-e89b-12d3-a456-42661417400}"));
        assert!(!is_uuid(b"123e4567-e89b-12d3-a456-42661417400g"));
        assert!(is_uuid(uuid_text(&[0xab; 16]).as_bytes()));
    }

    #[test]
    fn hex_comes_in_pairs() {
        let decoded = |text: &[u8]| {
            let mut bytes = Vec::new();
            hex(text, &mut bytes).map(|()| bytes)
        };
        assert_eq!(decoded(b"00fFA9"), Some(vec![0, 255, 0xa9]));
        assert_eq!(decoded(b""), Some(vec![]));
        assert_eq!(decoded(b"abc"), None);
        assert_eq!(decoded(b"g0"), None);
    }

    #[test]
    fn decimals_keep_every_digit() {
        assert_eq!(decimal(b"-12.5", 9, 2), Some(-1250));
        assert_eq!(decimal(b"12", 9, 2), Some(1200));
        assert_eq!(decimal(b"12.", 9, 2), Some(1200));
        assert_eq!(decimal(b".5", 9, 2), Some(50));
        assert_eq!(decimal(b"12.500", 9, 2), Some(1250));
        assert_eq!(decimal(b"12.501", 9, 2), None);
        assert_eq!(decimal(b"999", 3, 0), Some(999));
        assert_eq!(decimal(b"1000", 3, 0), None);
        assert_eq!(decimal(b"-99999999999999999999999999999999999999", 38, 0), Some(-(10i128.pow(38) - 1)));
        for wrong in ["", "-", ".", "1.2.3", "1e2", "99999999999999999999999999999999999999999"] {
            assert_eq!(decimal(wrong.as_bytes(), 38, 2), None, "{wrong}");
        }
    }
}
