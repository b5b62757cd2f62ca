//! `(x · w - offset) · scale + bias`, u8 × i8 → f32, with the dot products of AVX-512 VNNI.
//!
//! The only unsafe code of the crate, for a measured need. tract's kernel for these instructions takes int8
//! alone, so every activation is moved by 128 and packed before; it stores products wider than high number by
//! number, as i32, to be scaled after. With it DeiT-T as QDQ takes 14.0 ms of float's 21.6 (1.54 × as fast), with
//! this 11.6 (1.88 ×); DeiT-S 37.7 of 71.1 (1.87 ×) and 29.1 (2.44 ×). `examples/speed.rs`, Zen 5, one thread.

use std::arch::x86_64::*;
use std::fmt;

/// Products that one instruction adds to a sum.
const STEP: usize = 4;
/// Sums in a register.
const LANES: usize = 16;
/// A tile of sums has `ROWS` × `WIDE` registers: with one row of weights and an activation, 29 of the 32.
const ROWS: usize = 6;
const WIDE: usize = 4;
/// Channels in a panel.
const PANEL: usize = WIDE * LANES;

/// The weights of all channels, in the order in which the kernel reads them, and what follows the product.
pub struct Panels {
    inputs: usize,
    channels: usize,
    panels: Vec<Panel>,
}

struct Panel {
    weights: Vec<Step>,
    offsets: [[i32; LANES]; WIDE],
    scales: [[f32; LANES]; WIDE],
    bias: [[f32; LANES]; WIDE],
}

/// Four consecutive codes of each channel, zeros beyond the weight's ends. In a cache line each register.
#[repr(align(64))]
struct Step([[[i8; STEP]; LANES]; WIDE]);

/// The processor has what [`Panels::multiply`] needs.
pub fn is_available() -> bool {
    is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni")
}

/// What is done to a channel's sum.
#[derive(Clone, Copy, Debug, Default)]
pub struct Channel {
    /// Subtracted from the sum.
    pub offset: i32,
    /// Multiplies the difference.
    pub scale: f32,
    /// Added to the product.
    pub bias: f32,
}

impl Panels {
    /// `code(k, n)` is the weight of input `k` and channel `n`.
    pub fn new(inputs: usize, channels: &[Channel], code: impl Fn(usize, usize) -> i8) -> Self {
        let panel = |first: usize| {
            let channel = |c: usize, lane: usize| first + c * LANES + lane;
            let constant = |c, lane| channels.get(channel(c, lane)).copied().unwrap_or_default();
            let weight = |k, n| {
                let inside = k < inputs && n < channels.len();
                if inside { code(k, n) } else { 0 }
            };
            let step = |s: usize| {
                Step(tile(|c, lane| {
                    [0, 1, 2, 3].map(|i| weight(s * STEP + i, channel(c, lane)))
                }))
            };
            Panel {
                weights: (0..inputs.div_ceil(STEP)).map(step).collect(),
                offsets: tile(|c, lane| constant(c, lane).offset),
                scales: tile(|c, lane| constant(c, lane).scale),
                bias: tile(|c, lane| constant(c, lane).bias),
            }
        };
        Self {
            inputs,
            channels: channels.len(),
            panels: (0..channels.len()).step_by(PANEL).map(panel).collect(),
        }
    }

    /// Elements of a row of activations.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Elements of a row of values.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// `codes` are rows of [`inputs`](Self::inputs), `values` as many rows of [`channels`](Self::channels).
    pub fn multiply(&self, codes: &[u8], values: &mut [f32]) {
        if self.inputs == 0 || self.channels == 0 {
            return;
        }
        let padded = self.padded(codes);
        let steps = padded.as_deref().unwrap_or(codes).as_chunks().0;
        let rows: Vec<&[[u8; STEP]]> = steps.chunks_exact(self.inputs.div_ceil(STEP)).collect();
        assert!(is_available() && values.len() == rows.len() * self.channels);
        for (i, panel) in self.panels.iter().enumerate() {
            let blocks = values.chunks_mut(ROWS * self.channels);
            for (rows, values) in rows.chunks(ROWS).zip(blocks) {
                let rows = std::array::from_fn(|r| rows[r.min(rows.len() - 1)]);
                let values = values.chunks_exact_mut(self.channels);
                // SAFETY: the processor has the instructions, as asserted.
                unsafe { panel.multiply(rows, values.map(|row| &mut row[i * PANEL..])) };
            }
        }
    }

    /// Rows filled up to whole steps, unless they are.
    fn padded(&self, codes: &[u8]) -> Option<Vec<u8>> {
        if self.inputs.is_multiple_of(STEP) {
            return None;
        }
        let length = self.inputs.next_multiple_of(STEP);
        let mut padded = vec![0; codes.len() / self.inputs * length];
        let rows = padded.chunks_exact_mut(length);
        for (row, codes) in rows.zip(codes.chunks_exact(self.inputs)) {
            row[..self.inputs].copy_from_slice(codes);
        }
        Some(padded)
    }
}

fn tile<T>(element: impl Fn(usize, usize) -> T) -> [[T; LANES]; WIDE] {
    std::array::from_fn(|c| std::array::from_fn(|lane| element(c, lane)))
}

impl Panel {
    /// Writes the panel's channels at the start of each of `values`, which are the rest of a row.
    #[target_feature(enable = "avx512f,avx512vnni")]
    fn multiply<'v>(
        &self,
        rows: [&[[u8; STEP]]; ROWS],
        values: impl Iterator<Item = &'v mut [f32]>,
    ) {
        let sums = self.sums(rows);
        for (values, sums) in values.zip(sums) {
            let groups = values.chunks_mut(LANES).zip(sums);
            for (c, (values, sums)) in groups.enumerate() {
                let centred = _mm512_sub_epi32(sums, integers(&self.offsets[c]));
                let scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(centred), floats(&self.scales[c]));
                let sum = stored(_mm512_add_ps(scaled, floats(&self.bias[c])));
                values.copy_from_slice(&sum[..values.len()]);
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512vnni")]
    fn sums(&self, rows: [&[[u8; STEP]]; ROWS]) -> [[__m512i; WIDE]; ROWS] {
        // Lengths known to be equal leave no check of bounds in the loop.
        let rows = rows.map(|row| &row[..self.weights.len()]);
        let mut sums = [[_mm512_setzero_si512(); WIDE]; ROWS];
        for (step, weights) in self.weights.iter().enumerate() {
            let weights = [0, 1, 2, 3].map(|c| codes(&weights.0[c]));
            for (row, sums) in rows.iter().zip(&mut sums) {
                let x = _mm512_set1_epi32(i32::from_le_bytes(row[step]));
                for (sum, &weights) in sums.iter_mut().zip(&weights) {
                    *sum = _mm512_dpbusd_epi32(*sum, x, weights);
                }
            }
        }
        sums
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn codes(from: &[[i8; STEP]; LANES]) -> __m512i {
    // SAFETY: the reference is to 64 bytes.
    unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn integers(from: &[i32; LANES]) -> __m512i {
    // SAFETY: the reference is to 64 bytes.
    unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn floats(from: &[f32; LANES]) -> __m512 {
    // SAFETY: the reference is to 16 floats.
    unsafe { _mm512_loadu_ps(from.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn stored(from: __m512) -> [f32; LANES] {
    let mut to = [0.0; LANES];
    // SAFETY: the reference is to 16 floats.
    unsafe { _mm512_storeu_ps(to.as_mut_ptr(), from) };
    to
}

impl fmt::Debug for Panels {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} × {} weights", self.inputs, self.channels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_do_not_depend_on_the_rows_beside_them() {
        if !is_available() {
            return;
        }
        let (rows, inputs, channels) = (13, 10, 70);
        let codes: Vec<u8> = (0..rows * inputs).map(|i| (i * 37 % 256) as u8).collect();
        let weight = |k: usize, n: usize| (k * 29 + n * 53) as u8 as i8;
        let after = |n| Channel {
            offset: n as i32,
            scale: 0.5,
            bias: 1.0,
        };
        let panels = Panels::new(inputs, &Vec::from_iter((0..channels).map(after)), weight);

        let mut expected = vec![];
        for row in codes.chunks(inputs) {
            for n in 0..channels {
                let products = row
                    .iter()
                    .zip(0..)
                    .map(|(&x, k)| i32::from(x) * i32::from(weight(k, n)));
                expected.push((products.sum::<i32>() - n as i32) as f32 * 0.5 + 1.0);
            }
        }
        for first in 0..rows {
            let mut values = vec![f32::NAN; rows * channels];
            let (above, below) = values.split_at_mut(first * channels);
            panels.multiply(&codes[..first * inputs], above);
            panels.multiply(&codes[first * inputs..], below);
            assert_eq!(values, expected, "cut before row {first}");
        }
    }
}
