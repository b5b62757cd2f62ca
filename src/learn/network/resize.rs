//! Resize: along each axis a product with the matrix `[out, in]` of what each place takes from which, so that candle finds the gradient.

use candle_core::{Result, Tensor, bail};

use super::call::{Call, axis};

/// A Resize by sizes or scales.
pub fn resize(call: &Call<'_>) -> Result<Tensor> {
    let x = call.float(0)?;
    let form = Form::of(call)?;
    let axes = match call.op.ints("axes") {
        Some(axes) => axes
            .iter()
            .map(|&a| axis(a, x.rank()))
            .collect::<Result<Vec<_>>>()?,
        None => (0..x.rank()).collect(),
    };
    let scales = call.optional_floats(2)?.filter(|it| !it.is_empty());
    let sizes = call.integers(3)?;
    let mut y = x.clone();
    for (i, &axis) in axes.iter().enumerate() {
        let size = x.dim(axis)?;
        if size == 0 {
            bail!("Resize of nothing: {:?}", x.dims())
        }
        let (to, scale) = match (&scales, sizes) {
            (_, Some(sizes)) => {
                let to = sizes.values.get(i).copied().unwrap_or(0).max(0) as usize;
                (to, to as f64 / size as f64)
            }
            (Some(scales), None) => {
                let scale = f64::from(scales.get(i).copied().unwrap_or(1.0));
                ((size as f64 * scale).floor() as usize, scale)
            }
            (None, None) => bail!("Resize without sizes or scales"),
        };
        if to != size || scale != 1.0 {
            y = along(&y, axis, &form.matrix(size, to, scale), to)?;
        }
    }
    Ok(y)
}

/// The product with a matrix `[to, size]` along an axis.
fn along(x: &Tensor, axis: usize, matrix: &[f32], to: usize) -> Result<Tensor> {
    let (size, last) = (x.dim(axis)?, x.rank() - 1);
    let turned = x.transpose(axis, last)?.contiguous()?;
    let mut dims = turned.dims().to_vec();
    dims[last] = to;
    let matrix = Tensor::from_slice(matrix, (to, size), x.device())?;
    let y = turned.reshape(((), size))?.matmul(&matrix.t()?)?;
    y.reshape(dims)?.transpose(axis, last)?.contiguous()
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Nearest,
    Linear,
    Cubic,
}

/// How places are told and mixed.
struct Form {
    mode: Mode,
    /// `coordinate_transformation_mode`
    places: String,
    /// `nearest_mode`
    nearest: String,
    /// `cubic_coeff_a`
    a: f64,
    exclude_outside: bool,
}

impl Form {
    fn of(call: &Call<'_>) -> Result<Form> {
        let word = |name: &str, usual: &str| call.op.string(name).unwrap_or(usual).to_owned();
        let stretched = word("keep_aspect_ratio_policy", "stretch") == "stretch";
        if call.op.int("antialias") == Some(1) || !stretched {
            bail!("learning knows no gradient of a Resize with antialias or a kept aspect ratio")
        }
        let mode = match word("mode", "nearest").as_str() {
            "nearest" => Mode::Nearest,
            "linear" => Mode::Linear,
            "cubic" => Mode::Cubic,
            other => bail!("Resize knows no mode {other}"),
        };
        const PLACES: [&str; 4] = [
            "half_pixel",
            "pytorch_half_pixel",
            "asymmetric",
            "align_corners",
        ];
        let places = word("coordinate_transformation_mode", "half_pixel");
        if !PLACES.contains(&places.as_str()) {
            bail!("learning knows no gradient of a Resize with {places}")
        }
        Ok(Form {
            mode,
            places,
            nearest: word("nearest_mode", "round_prefer_floor"),
            a: f64::from(call.op.float("cubic_coeff_a").unwrap_or(-0.75)),
            exclude_outside: call.op.int("exclude_outside") == Some(1),
        })
    }

    /// `[to, size]`
    fn matrix(&self, size: usize, to: usize, scale: f64) -> Vec<f32> {
        let mut matrix = vec![0.0f32; to * size];
        for (row, out) in matrix.chunks_exact_mut(size).zip(0..to) {
            let taps = self.taps(self.place(out, (size, to), scale), size);
            let inside = |at: i64| (0..size as i64).contains(&at);
            let taps = taps
                .into_iter()
                .filter(|(at, _)| !self.exclude_outside || inside(*at));
            let taps: Vec<(i64, f64)> = taps.collect();
            let sum: f64 = taps.iter().map(|(_, w)| w).sum();
            for (at, weight) in taps {
                row[at.clamp(0, size as i64 - 1) as usize] += (weight / sum) as f32;
            }
        }
        matrix
    }

    /// Where in the original a place lies.
    fn place(&self, out: usize, (size, to): (usize, usize), scale: f64) -> f64 {
        let out = out as f64;
        match self.places.as_str() {
            "align_corners" if to > 1 => out * (size - 1) as f64 / (to - 1) as f64,
            "align_corners" => 0.0,
            "asymmetric" => out / scale,
            "pytorch_half_pixel" if to == 1 => 0.0,
            _ => (out + 0.5) / scale - 0.5,
        }
    }

    /// Places of the original, those beyond its ends too, and their weights.
    fn taps(&self, at: f64, size: usize) -> Vec<(i64, f64)> {
        let (floor, part) = (at.floor() as i64, at - at.floor());
        match self.mode {
            Mode::Nearest => {
                let nearest = match self.nearest.as_str() {
                    "floor" => at.floor(),
                    "ceil" => at.ceil(),
                    "round_prefer_ceil" => (at + 0.5).floor(),
                    _ => (at - 0.5).ceil(),
                };
                vec![((nearest as i64).clamp(0, size as i64 - 1), 1.0)]
            }
            Mode::Linear => vec![(floor, 1.0 - part), (floor + 1, part)],
            Mode::Cubic => (-1..=2)
                .map(|i| (floor + i, self.cubic((i as f64 - part).abs())))
                .collect(),
        }
    }

    /// Keys' kernel at a distance.
    fn cubic(&self, d: f64) -> f64 {
        let a = self.a;
        match d {
            d if d <= 1.0 => ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0,
            d if d < 2.0 => ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a,
            _ => 0.0,
        }
    }
}
