/// The bytes of a vector as it is printed in an RFC: pairs of hexadecimal digits, spaces ignored.
pub(crate) fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        digits.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_digit(16).expect("hexadecimal") as u8).collect();
    assert!(digits.len().is_multiple_of(2), "half a byte");
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}
