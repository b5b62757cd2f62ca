//! Second moments of a site's input, streamed over the lanes.

use std::ops::AddAssign;

use rayon::prelude::*;
use vitq_passes::plan::Activation;
use vitq_passes::structure::Site;

use super::CalibrateError;
use super::fold::Fold;
use super::operand::picked;
use crate::linalg::{add_gemm_tn, add_gram, mirror};
use crate::quant;
use crate::run::vector::vectorised;
use crate::walk::{Walk, World};

/// Lanes are summed in this many fixed groups, so that the sums do not depend on the number of threads.
const GROUPS: usize = 4;

/// Means alone are taken over every fourth token: far more than they need.
const THINNED: usize = 4;

/// Sums over all tokens of all lanes: `x` the float input, `x̂` the quantised one.
pub struct Moments {
    /// `Σ x̂ᵀx̂`, `[k, k]`; empty if only means were asked for.
    pub h: Vec<f32>,
    /// `Σ xᵀx̂`, `[k, k]`
    pub c: Vec<f32>,
    /// Mean of `x`, `[k]`
    pub mean: Vec<f32>,
    /// Mean of `x̂`, `[k]`
    pub mean_quantised: Vec<f32>,
    /// Mean of what `x̂` is the quantised form of, `[k]`; empty without branches, as the next.
    pub mean_before: Vec<f32>,
    /// Mean square of what quantising changed, `[k]`
    pub noise: Vec<f32>,
    /// Tokens that the sums are taken over.
    pub rows: usize,
}

/// Something summed over lanes in fixed groups, so that the sum does not depend on the number of threads.
pub fn over_lanes<S: Send>(
    lanes: usize,
    start: impl Fn() -> S + Sync,
    add: impl Fn(&mut S, usize) -> Result<(), CalibrateError> + Sync,
    merge: impl Fn(&mut S, &S),
) -> Result<S, CalibrateError> {
    let groups = by_group(lanes, &start, add)?;
    let mut total = start();
    for group in &groups {
        merge(&mut total, group);
    }
    Ok(total)
}

/// The sums of each group.
pub fn by_group<S: Send>(
    lanes: usize,
    start: impl Fn() -> S + Sync,
    add: impl Fn(&mut S, usize) -> Result<(), CalibrateError> + Sync,
) -> Result<Vec<S>, CalibrateError> {
    (0..GROUPS.min(lanes))
        .into_par_iter()
        .map(|g| {
            let mut sums = start();
            for lane in (g..lanes).step_by(GROUPS) {
                add(&mut sums, lane)?;
            }
            Ok(sums)
        })
        .collect()
}

/// What the sums are taken of.
pub struct Source<'a> {
    /// The walk, standing at the site.
    pub walk: &'a Walk<'a>,
    /// The site.
    pub site: &'a Site,
    /// Columns.
    pub k: usize,
    /// Fold of the input.
    pub fold: &'a Fold,
    /// Its quantiser; `x̂` is `x` where there is none.
    pub activation: Option<&'a Activation>,
    /// Whether a low-rank branch wants to know the noise.
    pub branches: bool,
}

impl Moments {
    /// Sums over all lanes; the second moments only if `second`.
    pub fn of(source: &Source<'_>, second: bool) -> Result<Moments, CalibrateError> {
        let mut total = over_lanes(
            source.walk.len(),
            || Sums::new(source, second),
            |sums, lane| sums.add(source, lane),
            Sums::merge,
        )?;
        mirror_if(&mut total.h, source.k);
        let n = total.rows.max(1) as f64;
        let mean = |s: &[f64]| s.iter().map(|v| (v / n) as f32).collect();
        Ok(Moments {
            mean: mean(&total.x),
            mean_quantised: mean(&total.q),
            mean_before: mean(&total.before),
            noise: mean(&total.noise),
            rows: total.rows,
            h: total.h,
            c: total.c,
        })
    }
}

fn mirror_if(h: &mut [f32], k: usize) {
    if !h.is_empty() {
        mirror(h, k);
    }
}

struct Sums {
    h: Vec<f32>,
    c: Vec<f32>,
    x: Vec<f64>,
    q: Vec<f64>,
    before: Vec<f64>,
    noise: Vec<f64>,
    rows: usize,
}

impl Sums {
    fn new(source: &Source<'_>, second: bool) -> Sums {
        let k = source.k;
        let size = if second { k * k } else { 0 };
        let noise = if source.branches { k } else { 0 };
        Sums {
            h: vec![0.0; size],
            c: vec![0.0; size],
            x: vec![0.0; k],
            q: vec![0.0; k],
            before: vec![0.0; noise],
            noise: vec![0.0; noise],
            rows: 0,
        }
    }

    fn add(&mut self, source: &Source<'_>, lane: usize) -> Result<(), CalibrateError> {
        let Source {
            walk,
            site,
            k,
            fold,
            activation,
            branches,
        } = *source;
        let read = |world| {
            let step = if self.h.is_empty() { THINNED } else { 1 };
            let mut some = picked(walk, site, k, lane, world, |count| every(count, step, lane))?;
            fold.apply(&mut some);
            Ok::<_, CalibrateError>(some)
        };
        let x = read(World::Float)?;
        let mut q = if walk.differs(lane) {
            read(World::Quantised)?
        } else {
            x.clone()
        };
        let before = branches.then(|| q.clone());
        if let Some(activation) = activation {
            quant::apply(activation, &mut q);
        }
        if let Some(mut noise) = before {
            column_sums(&mut self.before, &noise);
            let changed = noise.iter_mut().zip(&q);
            changed.for_each(|(x, q)| *x = (q - *x) * (q - *x));
            column_sums(&mut self.noise, &noise);
        }
        let n = x.len() / k;
        if !self.h.is_empty() {
            add_gram(&mut self.h, &q, n, k);
            add_gemm_tn(&mut self.c, &x, &q, n, k, k);
        }
        column_sums(&mut self.x, &x);
        column_sums(&mut self.q, &q);
        self.rows += n;
        Ok(())
    }

    fn merge(&mut self, other: &Sums) {
        fn add<T: Copy + AddAssign>(a: &mut [T], b: &[T]) {
            a.iter_mut().zip(b).for_each(|(a, b)| *a += *b);
        }
        add(&mut self.h, &other.h);
        add(&mut self.c, &other.c);
        add(&mut self.x, &other.x);
        add(&mut self.q, &other.q);
        add(&mut self.before, &other.before);
        add(&mut self.noise, &other.noise);
        self.rows += other.rows;
    }
}

/// Every `step`th of so many rows, from another one on in each lane.
fn every(count: usize, step: usize, lane: usize) -> Vec<usize> {
    let step = if count > step { step } else { 1 };
    (lane % step..count).step_by(step).collect()
}

fn column_sums(sums: &mut [f64], rows: &[f32]) {
    let mut part = vec![0.0f32; sums.len()];
    vectorised(|| {
        for row in rows.chunks_exact(sums.len()) {
            for (s, v) in part.iter_mut().zip(row) {
                *s += v;
            }
        }
    });
    for (s, p) in sums.iter_mut().zip(part) {
        *s += f64::from(p);
    }
}
