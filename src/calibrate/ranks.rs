//! Ranks of the low-rank branches beside the rounded weights, site by site: where they take the most error away for their
//! work.
//!
//! Rank `i` of a site takes about the share `σ_i² / Σσ²` off what quantising it does to the model's outputs, and costs
//! `tokens·(in + out)` float multiply-accumulates. As the `σ_i` fall, taking the ranks with the most error per work first is
//! the best choice but for what the last one leaves of the room. A branch never takes more room in the file than four bits
//! more a weight would: those take more of the error away.

use std::collections::BTreeMap;

use vitq_passes::ir::Graph;
use vitq_passes::structure::{Site, SiteKind, Structure};

use super::bench::{Bench, at_each_site};
use super::candidates::{INPUTS, energy, work};
use super::fold::Fold;
use super::{CalibrateError, Feeds, Part, Progress, Settings};
use crate::walk::Walk;

/// Ranks are taken in steps that fill a vector register's lanes.
const STEP: usize = 4;

/// Which sites get a branch of which rank.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Ranks {
    /// None does.
    #[default]
    None,
    /// Every Linear with weights below 8 bits, one of this rank.
    All(usize),
    /// Those with these node names.
    Sites(BTreeMap<String, usize>),
}

impl Ranks {
    /// The rank at a site.
    pub fn of(&self, site: &Site) -> usize {
        match self {
            _ if site.kind != SiteKind::Linear => 0,
            Ranks::None => 0,
            Ranks::All(rank) => *rank,
            Ranks::Sites(ranks) => ranks.get(&site.name).copied().unwrap_or(0),
        }
    }
}

/// Chooses ranks whose branches take at most `share` of the Linears' multiply-accumulates.
///
/// # Errors
/// There is nothing to measure on, an input cannot be read, or the float graph cannot be run.
pub fn choose(
    (graph, structure, feeds): (&Graph, &Structure, &dyn Feeds),
    settings: &Settings,
    share: f64,
    progress: &dyn Progress,
) -> Result<Ranks, CalibrateError> {
    let mut alone = settings.clone();
    // Spectra without branches.
    alone.ranks = Ranks::All(0);
    alone.without.extend([Part::Guard, Part::Sequential]);
    let eligible =
        |site: &Site| site.kind == SiteKind::Linear && settings.float_reason(site).is_none();
    let model = (graph, structure, feeds);
    let asked = at_each_site(model, (&[alone], INPUTS), progress, eligible, spectrum)?;
    let macs: u64 = asked.sites.iter().map(|it| it.macs).sum();
    let ranks = greedy(&asked.sites, (share * macs as f64) as u64);
    let chosen = asked.sites.iter().zip(ranks).filter(|(_, rank)| *rank > 0);
    let name = |it: &Measured| structure.sites[it.site].name.clone();
    Ok(Ranks::Sites(
        chosen.map(|(it, rank)| (name(it), rank)).collect(),
    ))
}

/// What is to be gained at a site.
struct Measured {
    site: usize,
    /// Multiply-accumulates of the Linear.
    macs: u64,
    /// The same of each rank.
    rank_macs: u64,
    /// Error energy at the model's outputs that each rank takes away, falling.
    gains: Vec<f64>,
}

fn spectrum(
    bench: &mut Bench<'_>,
    walk: &Walk<'_>,
    index: usize,
) -> Result<Measured, CalibrateError> {
    let work = work(&bench.state, walk, index)?;
    let mut measured = Measured {
        site: index,
        macs: work.macs,
        rank_macs: work.elements,
        gains: Vec::new(),
    };
    let Some(channels) = bench.channels(walk, index)? else {
        return Ok(measured);
    };
    bench.under(0, |bench| {
        let fold = bench
            .state
            .upstream_fold(walk, index, &channels)?
            .unwrap_or_else(|| Fold::identity(channels.lo.len()));
        let state = &bench.state;
        let bits = state.settings.bits(&state.structure.sites[index]);
        let solved = state.solve(walk, index, &fold, &channels, bits)?;
        let error = energy(bench.linear_db(walk, index, &solved)?);
        let total: f64 = solved.carried.iter().sum();
        if total > 0.0 {
            let gain = |sigma: &f64| error * sigma / total;
            let parameters = bench.state.parameters[index].as_ref();
            let most = parameters.map_or(0, |it| {
                most((it.k, it.out()), bench.state.settings.branch_bits)
            });
            measured.gains = solved.carried.iter().take(most).map(gain).collect();
        }
        Ok(measured)
    })
}

/// Highest rank whose factors take as many bits as four more a weight: `bits·r·(in + out) ≤ 4·in·out`.
fn most((inputs, outputs): (usize, usize), bits: u32) -> usize {
    4 * inputs * outputs / (bits as usize * (inputs + outputs)).max(1)
}

/// Ranks within `room` multiply-accumulates, those with the most error per work first.
fn greedy(sites: &[Measured], room: u64) -> Vec<usize> {
    let mut steps: Vec<(f64, usize)> = Vec::new();
    for (i, site) in sites.iter().enumerate() {
        let gains = site.gains.chunks_exact(STEP);
        steps.extend(gains.map(|gain| (gain.iter().sum::<f64>() / site.rank_macs as f64, i)));
    }
    // Stable: steps of one site stay in order.
    steps.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (mut ranks, mut room) = (vec![0; sites.len()], room);
    for (_, i) in steps {
        let cost = STEP as u64 * sites[i].rank_macs;
        if cost <= room {
            room -= cost;
            ranks[i] += STEP;
        }
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_go_where_they_take_the_most_away_for_their_work() {
        let site = |rank_macs, gains: &[f64]| Measured {
            site: 0,
            macs: 0,
            rank_macs,
            gains: gains.to_vec(),
        };
        let falling = [8.0, 8.0, 8.0, 8.0, 2.0, 2.0, 2.0, 2.0, 1.0];
        let sites = [
            site(10, &falling),
            site(20, &falling),
            site(10, &[0.5; 8]),
            site(1, &[]),
        ];
        assert_eq!(greedy(&sites, 39), [0, 0, 0, 0]);
        assert_eq!(greedy(&sites, 40), [4, 0, 0, 0]);
        assert_eq!(greedy(&sites, 120), [4, 4, 0, 0]);
        assert_eq!(greedy(&sites, 160), [8, 4, 0, 0]);
        // The next step is too dear, a later one is not.
        assert_eq!(greedy(&sites, 200), [8, 4, 4, 0]);
        assert_eq!(greedy(&sites, 10_000), [8, 8, 8, 0]);
    }
}
