//! Adam (arXiv 1412.6980).

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
        let moments = self.mean.iter_mut().zip(&mut self.square);
        for ((value, (m, v)), g) in self.values.iter_mut().zip(moments).zip(gradient) {
            *m += (1.0 - BETA.0) * (g - *m);
            *v += (1.0 - BETA.1) * (g * g - *v);
            *value -= rate * *m / (v.sqrt() + 1e-12);
        }
    }
}
