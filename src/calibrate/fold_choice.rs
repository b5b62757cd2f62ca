//! Which fold the readers of a LayerNormalization, or a Linear behind another one, get.

use rayon::prelude::*;

use super::fold::{Channels, Fold};
use super::migrate::Migration;
use super::operand::sample;
use super::parameters::Parameters;
use super::{CalibrateError, Calibration, Part};
use crate::linalg::{gemm_nt, square_sum};
use crate::quant::{self, FLOAT_BITS, Histogram};
use crate::solve::round_to_nearest;
use crate::walk::Walk;

/// Error of a weaker fold, in units of the least, up to which it is preferred. On 68 images that were not calibrated on,
/// ViT-Tiny W4A8 gave 11.0 dB with a preference of 1, 11.3 with 1.1, 11.1 with 1.25, and W4A4 (all) 6.0, 5.7 and 5.1.
const FOLD_PREFERENCE: f64 = 1.1;

/// Rows that folds are compared on.
const FOLD_ROWS: usize = 128;

impl Calibration<'_> {
    /// The fold that what lies before a site takes over: the LayerNormalization that it reads (decided at its first site
    /// for all of them), or the Linear that makes V.
    pub(super) fn upstream_fold(
        &mut self,
        walk: &Walk<'_>,
        index: usize,
        channels: &Channels,
    ) -> Result<Option<Fold>, CalibrateError> {
        let float_input = self.settings.bits(&self.structure.sites[index]).1 == FLOAT_BITS;
        if let Some(carrier) = self.carriers.get(&index).cloned().filter(|_| !float_input) {
            let fold = self.choose_fold(walk, &[index], index, channels, carrier.shifts)?;
            self.migrations.push(Migration {
                reader: index,
                carrier,
                fold: fold.clone(),
            });
            return Ok(Some(fold));
        }
        let Some(norm) = self.structure.sites[index].norm else {
            return Ok(None);
        };
        if self.structure.norms[norm].declined.is_some() || !self.settings.has(Part::Fold) {
            return Ok(None);
        }
        if !self.folds.contains_key(&norm) {
            let found = &self.structure.norms[norm];
            let shifts = found.shift.is_some();
            let fold = if float_input {
                Fold::identity(self.parameters[index].as_ref().map_or(1, |it| it.k))
            } else {
                self.choose_fold(walk, &found.sites, index, channels, shifts)?
            };
            self.folds.insert(norm, fold);
        }
        Ok(self.folds.get(&norm).cloned())
    }

    /// RepQ-ViT's fold at full, half or no strength: whichever leaves the least error behind all readers. `shifts`: what
    /// lies before can take a shift too.
    fn choose_fold(
        &self,
        walk: &Walk<'_>,
        readers: &[usize],
        index: usize,
        channels: &Channels,
        shifts: bool,
    ) -> Result<Fold, CalibrateError> {
        let site = &self.structure.sites[index];
        let (weight_bits, activation_bits) = self.settings.bits(site);
        let readers: Vec<&Parameters> = readers
            .iter()
            .filter_map(|&s| self.parameters[s].as_ref())
            .collect();
        let Some(k) = readers.first().map(|p| p.k) else {
            return Ok(Fold::identity(1));
        };
        let together = Parameters {
            weight: readers
                .iter()
                .flat_map(|p| p.weight.iter().copied())
                .collect(),
            bias: readers
                .iter()
                .flat_map(|p| p.bias.iter().copied())
                .collect(),
            k,
        };
        let seen = sample(walk, site, k, FOLD_ROWS, self.world())?;
        let candidates: Vec<(f64, Fold)> = [0.0, 0.5, 1.0]
            .into_par_iter()
            .map(|strength| {
                let fold = if strength == 0.0 {
                    Fold::identity(k)
                } else if !shifts {
                    Fold::peaks(channels, strength)
                } else {
                    Fold::repq(channels, activation_bits, strength)
                };
                let parameters = together.folded(&fold);
                let mut values = seen.clone();
                fold.apply(&mut values);
                let (lo, hi) = channels.folded(&fold);
                let mut histogram = Histogram::new(lo, hi);
                histogram.add(&values, &parameters.column_energy());
                let activation = self.activation(&histogram.points(), activation_bits);
                let mut error = values.clone();
                quant::apply(&activation, &mut error);
                error.iter_mut().zip(&values).for_each(|(q, x)| *q -= x);
                let behind = gemm_nt(
                    &error,
                    &parameters.weight,
                    error.len() / k,
                    k,
                    parameters.out(),
                );
                (
                    square_sum(&behind) + self.rounding_energy(&parameters, &values, weight_bits),
                    fold,
                )
            })
            .collect();
        let least = candidates
            .iter()
            .fold(f64::INFINITY, |least, (error, _)| least.min(*error));
        // The weakest that is about as good as the best: few rows flatter a strong one.
        let fold = candidates
            .into_iter()
            .find(|(error, _)| *error <= least * FOLD_PREFERENCE);
        Ok(fold.map_or_else(|| Fold::identity(k), |(_, fold)| fold))
    }

    /// Energy at the output of rounding the weights to nearest: `Σ_oj (ŵ - w)²·Σ x_j²`; at 8 bits the expected one,
    /// `Σ_o s_o²/12 · Σ x²`.
    fn rounding_energy(&self, parameters: &Parameters, values: &[f32], bits: u32) -> f64 {
        let k = parameters.k;
        if bits == 8 {
            let steps = parameters.weight.chunks_exact(k).map(|row| {
                let scale = row.iter().fold(0.0f32, |m, w| m.max(w.abs())) / 127.0;
                f64::from(scale * scale) / 12.0
            });
            return steps.sum::<f64>() * square_sum(values);
        }
        let mut cost = vec![0.0f32; k];
        for row in values.chunks_exact(k) {
            cost.iter_mut().zip(row).for_each(|(c, x)| *c += x * x);
        }
        let grid = self.grid(&parameters.weight, &cost, (bits, None));
        let rounded = round_to_nearest(&parameters.weight, k, &grid).dequantise();
        let rows = rounded
            .chunks_exact(k)
            .zip(parameters.weight.chunks_exact(k));
        rows.map(|(q, w)| {
            let energy = q.iter().zip(w).zip(&cost);
            f64::from(energy.map(|((q, w), c)| c * (q - w) * (q - w)).sum::<f32>())
        })
        .sum()
    }
}
