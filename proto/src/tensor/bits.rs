//! Elements as `raw_data` has them: little-endian, and narrower than a byte as a stream of bits, low
//! bits first.

use bytes::Bytes;

/// The bytes of whole-byte elements.
pub(super) fn bytes_of<T: Copy, const N: usize>(
    values: &[T],
    to_bytes: impl Fn(T) -> [u8; N],
) -> Bytes {
    let elements: Vec<[u8; N]> = values.iter().map(|&value| to_bytes(value)).collect();
    elements.into_flattened().into()
}

/// The `count` elements of `bits` (1 to 8) bits in `data`, which is long enough.
pub(super) fn unpack(data: &[u8], bits: usize, count: usize) -> impl Iterator<Item = u8> {
    let mask = (1u16 << bits) - 1;
    (0..count).map(move |i| {
        let (byte, shift) = (i * bits / 8, i * bits % 8);
        let next = data.get(byte + 1).copied().unwrap_or(0);
        ((u16::from_le_bytes([data[byte], next]) >> shift) & mask) as u8
    })
}

/// Packs the low `bits` (1 to 8) bits of each code; the rest of the last byte is zero.
pub(super) fn pack(codes: impl ExactSizeIterator<Item = u8>, bits: usize) -> Vec<u8> {
    let mask = (1u16 << bits) - 1;
    let mut out = vec![0; (codes.len() * bits).div_ceil(8)];
    for (i, code) in codes.enumerate() {
        let (byte, shift) = (i * bits / 8, i * bits % 8);
        let [low, high] = ((u16::from(code) & mask) << shift).to_le_bytes();
        out[byte] |= low;
        if high != 0 {
            out[byte + 1] |= high;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn six_bits_follow_the_specification() {
        // onnx.proto: byte0 = x0 | (x1 & 3) << 6, byte1 = x1 >> 2 | (x2 & 15) << 4, byte2 = x2 >> 4 | x3 << 2
        let x = [0b10_1101u8, 0b01_0110, 0b11_1001, 0b00_0111];
        let expected = [
            x[0] | ((x[1] & 3) << 6),
            (x[1] >> 2) | ((x[2] & 15) << 4),
            (x[2] >> 4) | (x[3] << 2),
        ];
        assert_eq!(pack(x.into_iter(), 6), expected);
    }

    proptest! {
        #[test]
        fn unpacking_undoes_packing(codes in prop::collection::vec(0u8..64, 0..40), bits in prop::sample::select(vec![2usize, 4, 6])) {
            let codes: Vec<u8> = codes.into_iter().map(|code| code & ((1 << bits) - 1)).collect();
            let packed = pack(codes.iter().copied(), bits);
            prop_assert_eq!(unpack(&packed, bits, codes.len()).collect::<Vec<_>>(), codes);
        }
    }
}
