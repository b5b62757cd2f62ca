//! One candidate a site under a limit on the sum of their costs: the multiple-choice knapsack.
//!
//! `min Σ_i e_i(x_i)  subject to  Σ_i c_i(x_i) ≤ C`, the integer program of HAWQ-V3 (arXiv 2011.10680, §3.4).
//!
//! Solved by dynamic programming over the room that is left (Kellerer, Pferschy, Pisinger: Knapsack Problems, ch. 11), in
//! at most 2¹⁵ steps of room, each cost rounded up to whole steps: what comes out always fits. How far it can be from
//! the best is known: the linear relaxation, `Σ_i min_x (e_i + λ·c_i) - λ·C` at its best `λ`, is a bound from below.

/// Steps of room that are told apart.
const STEPS: u64 = 1 << 15;

/// What a site may become.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// What it takes of the limit.
    pub cost: u64,
    /// Energy of its error at the outputs, relative to their signal; finite, ≥ 0.
    pub error: f64,
}

/// One candidate a site.
#[derive(Clone, Debug, PartialEq)]
pub struct Allocation {
    /// Which one, by site.
    pub picks: Vec<usize>,
    /// Sum of their costs, within the limit.
    pub cost: u64,
    /// Sum of their errors.
    pub error: f64,
    /// No choice within the limit has a smaller sum of errors than this.
    pub bound: f64,
}

/// The candidates with the least sum of errors whose costs stay within `limit`, one of each site.
///
/// # Errors
/// Not even the cheapest ones stay within it: the sum of their costs.
pub fn allocate(sites: &[Vec<Candidate>], limit: u64) -> Result<Allocation, u64> {
    let least: u64 = sites.iter().map(|site| cheapest(site)).sum();
    let Some(room) = limit.checked_sub(least) else {
        return Err(least);
    };
    let most: u64 = sites
        .iter()
        .map(|site| dearest(site) - cheapest(site))
        .sum();
    let picks = dynamic(sites, room.min(most));
    let chosen = || {
        sites
            .iter()
            .zip(&picks)
            .filter_map(|(site, &pick)| site.get(pick))
    };
    Ok(Allocation {
        cost: chosen().map(|it| it.cost).sum(),
        error: chosen().map(|it| it.error).sum(),
        bound: relaxation(sites, room),
        picks,
    })
}

fn cheapest(site: &[Candidate]) -> u64 {
    site.iter().map(|it| it.cost).min().unwrap_or(0)
}

fn dearest(site: &[Candidate]) -> u64 {
    site.iter().map(|it| it.cost).max().unwrap_or(0)
}

/// `best[r] = min_x best'[r - c(x)] + e(x)` over the sites, with `r` steps of room beyond the cheapest candidates.
fn dynamic(sites: &[Vec<Candidate>], room: u64) -> Vec<usize> {
    let step = room.div_ceil(STEPS).max(1);
    let steps = (room / step) as usize;
    let mut best = vec![0.0f64; steps + 1];
    let mut choices: Vec<Vec<u8>> = Vec::with_capacity(sites.len());
    let extra =
        |site: &[Candidate], x: &Candidate| (x.cost - cheapest(site)).div_ceil(step) as usize;
    for site in sites {
        let mut next = vec![f64::INFINITY; steps + 1];
        let mut choice = vec![0u8; steps + 1];
        for (index, candidate) in site.iter().enumerate() {
            let extra = extra(site, candidate);
            for r in extra..=steps {
                let error = best[r - extra] + candidate.error;
                if error < next[r] {
                    (next[r], choice[r]) = (error, index as u8);
                }
            }
        }
        if !site.is_empty() {
            best = next;
        }
        choices.push(choice);
    }
    let mut left = steps;
    let mut picks = vec![0; sites.len()];
    for ((pick, site), choice) in picks.iter_mut().zip(sites).zip(&choices).rev() {
        *pick = usize::from(choice[left]);
        left -= site.get(*pick).map_or(0, |it| extra(site, it));
    }
    picks
}

/// A step from one candidate to a dearer one on the lower convex hull of a site's candidates.
struct Edge {
    cost: u64,
    gain: f64,
}

/// Least error where parts of candidates may be taken: all edges of all hulls, steepest first, the last one in part.
fn relaxation(sites: &[Vec<Candidate>], room: u64) -> f64 {
    let mut error = 0.0;
    let mut edges = Vec::new();
    for site in sites {
        let hull = hull(site);
        error += hull.first().map_or(0.0, |it| it.error);
        edges.extend(hull.windows(2).map(|pair| Edge {
            cost: pair[1].cost - pair[0].cost,
            gain: pair[0].error - pair[1].error,
        }));
    }
    edges.sort_by(|a, b| slope(b).total_cmp(&slope(a)));
    let mut room = room;
    for edge in edges {
        let part = edge.cost.min(room);
        error -= edge.gain * part as f64 / edge.cost as f64;
        room -= part;
    }
    // Differences of sums leave a rounding error behind.
    error.max(0.0)
}

fn slope(edge: &Edge) -> f64 {
    edge.gain / edge.cost as f64
}

/// The candidates from the cheapest to the one with the least error, each step less steep than the one before.
fn hull(site: &[Candidate]) -> Vec<Candidate> {
    let mut sorted = site.to_vec();
    sorted.sort_by(|a, b| a.cost.cmp(&b.cost).then(a.error.total_cmp(&b.error)));
    let mut hull: Vec<Candidate> = Vec::new();
    for candidate in sorted {
        if hull
            .last()
            .is_some_and(|last| candidate.error >= last.error)
        {
            continue;
        }
        while let [.., a, b] = hull[..] {
            let rise =
                |x: &Candidate, y: &Candidate| (x.error - y.error) / (y.cost - x.cost) as f64;
            if rise(&a, &b) > rise(&b, &candidate) {
                break;
            }
            hull.pop();
        }
        hull.push(candidate);
    }
    hull
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Least error of all choices within the limit, by trying them all.
    fn brute_force(sites: &[Vec<Candidate>], limit: u64) -> Option<f64> {
        let Some((first, rest)) = sites.split_first() else {
            return Some(0.0);
        };
        let tried = first.iter().filter_map(|candidate| {
            let left = limit.checked_sub(candidate.cost)?;
            Some(candidate.error + brute_force(rest, left)?)
        });
        tried.min_by(f64::total_cmp)
    }

    fn candidates(largest: u64) -> impl Strategy<Value = Vec<Vec<Candidate>>> {
        let candidate =
            (0..largest, 0.0..1.0f64).prop_map(|(cost, error)| Candidate { cost, error });
        prop::collection::vec(prop::collection::vec(candidate, 1..4), 0..7)
    }

    proptest! {
        #[test]
        fn nothing_within_the_limit_is_better(sites in candidates(60), limit in 0u64..300) {
            match (allocate(&sites, limit), brute_force(&sites, limit)) {
                (Ok(given), Some(best)) => {
                    prop_assert!((given.error - best).abs() < 1e-12, "{} is not {best}", given.error);
                    prop_assert!(given.cost <= limit && given.bound <= best + 1e-12);
                    let sum: f64 = sites.iter().zip(&given.picks).map(|(s, p)| s[*p].error).sum();
                    prop_assert!((sum - given.error).abs() < 1e-12);
                }
                (Err(least), None) => prop_assert!(least > limit && allocate(&sites, least).is_ok()),
                other => prop_assert!(false, "{other:?}"),
            }
        }

        #[test]
        fn rounding_of_large_costs_never_breaks_the_limit_or_the_bound(
            sites in candidates(40_000_000), limit in 0u64..150_000_000
        ) {
            if let (Ok(given), Some(best)) = (allocate(&sites, limit), brute_force(&sites, limit)) {
                prop_assert!(given.cost <= limit);
                prop_assert!(given.bound <= best + 1e-12 && best <= given.error + 1e-12);
            }
        }
    }
}
