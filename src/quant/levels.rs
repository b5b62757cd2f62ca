//! Levels of a weight's codebook: placed on a grid for the least weighted squared error.
//!
//! One-dimensional k-means over the bins of a grid has an exact optimum by dynamic programming, so no Lloyd iteration
//! that could stop early is needed. Square-law, logarithmic and uniform codes are all among the candidates.

/// Weighted moments of what falls on one fine code.
#[derive(Clone, Copy, Default)]
pub struct Bin {
    /// `Σ w`
    pub weight: f64,
    /// `Σ w·x`, x in units of the fine grid
    pub first: f64,
    /// `Σ w·x²`
    pub second: f64,
}

/// Up to `count` levels (indices of bins, ascending) with the least `Σ w·(x - level)²`, and that error.
/// `value(i)` is bin `i` in the unit of its moments: `i + origin`.
pub fn best_levels(bins: &[Bin], origin: f64, count: usize) -> (Vec<usize>, f64) {
    let n = bins.len();
    let mut sums = vec![Bin::default(); n + 1];
    for (i, b) in bins.iter().enumerate() {
        let s = sums[i];
        sums[i + 1] = Bin {
            weight: s.weight + b.weight,
            first: s.first + b.first,
            second: s.second + b.second,
        };
    }
    // Cost of bins a..b on their best grid level, and that level.
    let cell = |a: usize, b: usize| -> (f64, usize) {
        let (w, x, xx) = (
            sums[b].weight - sums[a].weight,
            sums[b].first - sums[a].first,
            sums[b].second - sums[a].second,
        );
        if w <= 0.0 {
            return (0.0, a);
        }
        let level = (x / w - origin).round().clamp(0.0, (n - 1) as f64);
        let v = level + origin;
        ((xx - 2.0 * v * x + v * v * w).max(0.0), level as usize)
    };
    let mut costs = vec![(0.0, 0); n * (n + 1)];
    for a in 0..n {
        for b in a + 1..=n {
            costs[a * (n + 1) + b] = cell(a, b);
        }
    }
    // best[b]: least cost of the first b bins with as many levels as rounds so far; from[round][b]: where the last cell starts.
    let mut best: Vec<f64> = (0..=n)
        .map(|b| if b == 0 { 0.0 } else { f64::INFINITY })
        .collect();
    let mut from = Vec::with_capacity(count);
    for _ in 0..count.min(n) {
        let mut next = vec![f64::INFINITY; n + 1];
        let mut start = vec![0; n + 1];
        next[0] = 0.0;
        for b in 1..=n {
            for a in 0..b {
                let e = best[a] + costs[a * (n + 1) + b].0;
                if e < next[b] {
                    (next[b], start[b]) = (e, a);
                }
            }
        }
        best = next;
        from.push(start);
    }
    let mut levels = Vec::new();
    let mut b = n;
    for start in from.iter().rev() {
        if b == 0 {
            break;
        }
        let a = start[b];
        levels.push(costs[a * (n + 1) + b].1);
        b = a;
    }
    levels.sort_unstable();
    levels.dedup();
    (levels, best[n])
}
