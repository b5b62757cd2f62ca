//! Step, zero point and width of a value's codes.

use vitq_onnx::Tensor;

use super::super::uniform::affine;

/// Type of codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Width {
    /// uint8
    Eight,
    /// uint16
    Sixteen,
}

impl Width {
    fn top(self) -> f32 {
        match self {
            Width::Eight => 255.0,
            Width::Sixteen => 65535.0,
        }
    }
}

/// Codes of a value: `x̂ = (code - zero)·scale`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Step {
    pub scale: f32,
    pub zero: u16,
    pub width: Width,
}

impl Step {
    /// Codes that span a range, zero among them.
    pub fn spanning((least, most): (f32, f32), width: Width) -> Step {
        let (scale, zero) = affine(least, most, width.top());
        Step {
            scale,
            zero: zero as u16,
            width,
        }
    }

    /// The same values in 16 bits, each exactly: code `c` becomes `256·c`.
    pub fn widened(self) -> Step {
        match self.width {
            Width::Sixteen => self,
            Width::Eight => Step {
                scale: self.scale / 256.0,
                zero: self.zero * 256,
                width: Width::Sixteen,
            },
        }
    }

    /// The zero point, which gives the codes their type.
    pub fn zero_point(self) -> Tensor {
        self.tensor(&[], &[f32::from(self.zero)])
    }

    /// The nearest codes.
    pub fn codes(self, dims: &[usize], values: &[f32]) -> Tensor {
        let code = |v: &f32| (v / self.scale).round_ties_even() + f32::from(self.zero);
        let codes: Vec<f32> = values.iter().map(code).collect();
        self.tensor(dims, &codes)
    }

    /// `as` saturates below and above.
    fn tensor(self, dims: &[usize], codes: &[f32]) -> Tensor {
        match self.width {
            Width::Eight => {
                let codes: Vec<u8> = codes.iter().map(|&c| c as u8).collect();
                Tensor::from_u8(dims, &codes)
            }
            Width::Sixteen => {
                let codes: Vec<u16> = codes.iter().map(|&c| c as u16).collect();
                Tensor::from_u16(dims, &codes)
            }
        }
    }
}
