//! Adam (arXiv 1412.6980).

use crate::linalg::square_sum;

/// A group of numbers that are learned at one rate.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// The numbers.
    pub values: Vec<f32>,
    /// Largest change of one step, about.
    rate: f32,
    /// First moments of the gradients.
    pub mean: Vec<f32>,
    /// Second ones.
    pub square: Vec<f32>,
}

const BETA: (f32, f32) = (0.9, 0.999);

/// Most of a gradient, next to what is usual.
const CLIP: f64 = 3.0;

impl Parameter {
    /// Numbers with a rate.
    pub fn new(values: Vec<f32>, rate: f32) -> Self {
        Self {
            mean: vec![0.0; values.len()],
            square: vec![0.0; values.len()],
            values,
            rate,
        }
    }

    /// Whether there is anything to learn.
    pub fn learns(&self) -> bool {
        self.rate > 0.0 && !self.values.is_empty()
    }

    /// Step `t` (from 1) against a gradient, `factor` times the rate.
    pub fn step(&mut self, gradient: &[f32], t: usize, factor: f32) {
        let power = |beta: f32| 1.0 - f64::from(beta).powi(t as i32) as f32;
        let (first, second) = (power(BETA.0), power(BETA.1).sqrt());
        let rate = self.rate * factor * second / first;
        let share = self.clip(gradient, t);
        let moments = self.mean.iter_mut().zip(&mut self.square);
        for ((value, (m, v)), g) in self.values.iter_mut().zip(moments).zip(gradient) {
            let g = share * g;
            *m += (1.0 - BETA.0) * (g - *m);
            *v += (1.0 - BETA.1) * (g * g - *v);
            *value -= rate * *m / (v.sqrt() + 1e-12);
        }
    }

    /// Share of a gradient that counts, so that its norm is no more than [`CLIP`] times what is usual (arXiv 1211.5063). On ViT-Tiny one view in
    /// a hundred has a gradient 30 times as large as the median, and one in a thousand a hundred times, and that would be most of the
    /// second moments for hundreds of steps.
    fn clip(&self, gradient: &[f32], t: usize) -> f32 {
        let known = 1.0 - f64::from(BETA.1).powi(t as i32 - 1);
        let squares: f64 = self.square.iter().copied().map(f64::from).sum();
        let most = CLIP * (squares / known.max(f64::MIN_POSITIVE)).sqrt();
        let norm = square_sum(gradient).sqrt();
        match most > 0.0 && norm > most {
            true => (most / norm) as f32,
            false => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_wild_gradient_does_not_slow_the_next_ones_down() {
        let walk = |wild: f32| {
            let mut parameter = Parameter::new(vec![0.0; 2], 0.1);
            for t in 1..=50 {
                let gradient = if t == 10 { wild } else { 1.0 };
                parameter.step(&[gradient, -gradient], t, 1.0);
            }
            parameter.values
        };
        let [calm, wild] = [walk(1.0), walk(1e3)];
        assert!((calm[0] + 5.0).abs() < 1e-3, "{calm:?}");
        assert!((wild[0] / calm[0] - 1.0).abs() < 0.1, "{wild:?}");
        assert_eq!(wild[0], -wild[1]);
    }
}
