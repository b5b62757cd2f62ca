//! Floats of at most eight bits.

use crate::DataType;

/// What the codes outside the ordinary numbers mean.
enum Special {
    /// Largest exponent: infinity where the mantissa is zero, else NaN.
    Ieee,
    /// All ones but the sign: NaN. No infinities.
    OnesAreNan,
    /// The code of negative zero: NaN. No infinities.
    NegativeZeroIsNan,
    /// Every code is a number.
    None,
}

struct Format {
    exponent_bits: u32,
    mantissa_bits: u32,
    bias: i32,
    special: Special,
}

/// Value of every code of `dtype`; entries beyond the type's width repeat. `None` where the type is wider.
///
/// Formats: Micikevicius et al. 2022 (arXiv 2209.05433), Noune et al. 2022 (arXiv 2206.02915), and the
/// OCP Microscaling (MX) specification 1.0.
pub(super) fn table(dtype: DataType) -> Option<[f32; 256]> {
    let (exponent_bits, mantissa_bits, bias, special) = match dtype {
        DataType::Float8e8m0 => return Some(std::array::from_fn(|code| power_of_two(code as u8))),
        DataType::Float8e4m3fn => (4, 3, 7, Special::OnesAreNan),
        DataType::Float8e4m3fnuz => (4, 3, 8, Special::NegativeZeroIsNan),
        DataType::Float8e5m2 => (5, 2, 15, Special::Ieee),
        DataType::Float8e5m2fnuz => (5, 2, 16, Special::NegativeZeroIsNan),
        DataType::Float6e2m3 => (2, 3, 1, Special::None),
        DataType::Float6e3m2 => (3, 2, 3, Special::None),
        DataType::Float4e2m1 => (2, 1, 1, Special::None),
        _ => return None,
    };
    let format = Format {
        exponent_bits,
        mantissa_bits,
        bias,
        special,
    };
    Some(std::array::from_fn(|code| format.value(code as u32)))
}

impl Format {
    fn value(&self, code: u32) -> f32 {
        let mantissa = code & ((1 << self.mantissa_bits) - 1);
        let exponent = (code >> self.mantissa_bits) & ((1 << self.exponent_bits) - 1);
        let negative = (code >> (self.mantissa_bits + self.exponent_bits)) & 1 == 1;
        let top = exponent == (1 << self.exponent_bits) - 1;
        let magnitude = match self.special {
            Special::Ieee if top && mantissa == 0 => f32::INFINITY,
            Special::Ieee if top => f32::NAN,
            Special::OnesAreNan if top && mantissa == (1 << self.mantissa_bits) - 1 => f32::NAN,
            Special::NegativeZeroIsNan if negative && exponent == 0 && mantissa == 0 => f32::NAN,
            _ => self.number(exponent, mantissa),
        };
        if negative { -magnitude } else { magnitude }
    }

    fn number(&self, exponent: u32, mantissa: u32) -> f32 {
        // A zero exponent is subnormal: no hidden one, and the scale of exponent 1.
        let hidden = u32::from(exponent > 0) << self.mantissa_bits;
        let scale = exponent.max(1) as i32 - self.bias - self.mantissa_bits as i32;
        (mantissa + hidden) as f32 * 2f32.powi(scale)
    }
}

/// E8M0: 2^(code - 127), and 255 is NaN.
fn power_of_two(code: u8) -> f32 {
    match code {
        0 => f32::from_bits(1 << 22),
        255 => f32::NAN,
        _ => f32::from_bits(u32::from(code) << 23),
    }
}
