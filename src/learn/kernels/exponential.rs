//! `eˣ` that the compiler turns into vector instructions, as the library's is a call a value.

use crate::quant::round;

/// `eˣ` for `x` of at most 88, to 2e-7 of its size (the polynomial of Cephes' `expf`): `2ⁿ·eʳ` with `|r| ≤ ½·ln 2`. Below -87 it is
/// the least normal number.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // ln 2 in two parts, so that n·ln 2 is exact to the last bit of x.
    const LN_2: (f32, f32) = (0.693_359_4, -2.121_944_4e-4);
    let x = x.clamp(-87.0, 88.0);
    let n = round(x * std::f32::consts::LOG2_E);
    let r = x - n * LN_2.0 - n * LN_2.1;
    let series = [
        1.987_569_2e-4,
        1.398_199_9e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        0.166_666_66,
        0.5,
    ];
    let series = series.into_iter().fold(0.0, |sum, c| sum * r + c);
    (series * r * r + r + 1.0) * f32::from_bits(((n as i32 + 127) << 23) as u32)
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_is_the_librarys() {
        for i in -8700..8800 {
            let x = i as f32 / 100.0;
            let (ours, theirs) = (super::exp(x), x.exp());
            assert!(
                (ours - theirs).abs() <= 3e-7 * theirs,
                "{x}: {ours}, {theirs}"
            );
        }
    }
}
