//! Runs of steps between two blocks, cut where the fewest values pass from one to the next.

use std::collections::HashSet;
use std::ops::Range;

use vitq_passes::ir::Outlet;
use vitq_passes::structure::Structure;

use super::{Kind, Network};

/// A run of steps.
#[derive(Clone, Debug)]
pub struct Segment {
    /// As a person says it: `blocks.7`.
    pub name: String,
    /// Indices into [`Network::steps`].
    pub steps: Range<usize>,
    /// Values from before that it reads.
    pub reads: Vec<Outlet>,
    /// Values that are read behind it, or leave the network.
    pub writes: Vec<Outlet>,
    /// What learns in it: sites, and norms behind the number of those.
    pub places: Vec<usize>,
}

impl Network {
    /// All steps.
    pub fn whole(&self, name: &str) -> Segment {
        self.segment(name.to_owned(), 0..self.steps.len())
    }

    fn segment(&self, name: String, steps: Range<usize>) -> Segment {
        let mut reads = Vec::new();
        let mut made = HashSet::new();
        let mut places = Vec::new();
        for step in &self.steps[steps.clone()] {
            for &read in step.reads.iter().flatten() {
                let outside = !made.contains(&read) && !self.constants.contains_key(&read);
                if outside && !reads.contains(&read) {
                    reads.push(read);
                }
            }
            made.extend(step.writes.iter().copied());
            if let Kind::Site(place) | Kind::Norm(place, _) = step.kind {
                places.push(place);
            }
        }
        let needed = self.needed_from(steps.end);
        let written = self.steps[steps.clone()].iter().flat_map(|s| &s.writes);
        let writes = written.copied().filter(|it| needed.contains(it)).collect();
        Segment {
            name,
            steps,
            reads,
            writes,
            places,
        }
    }

    /// Values that are read from a step on, or leave the network.
    pub fn needed_from(&self, step: usize) -> HashSet<Outlet> {
        let reads = self.steps[step..].iter().flat_map(|s| &s.reads);
        let outputs = self.outputs.iter().map(|(_, outlet)| *outlet);
        reads.flatten().copied().chain(outputs).collect()
    }

    /// The steps from `start` on that end with the values that another network's segment writes.
    pub fn up_to(&self, start: usize, other: &Segment) -> Segment {
        let written = |step: &super::Step| step.writes.iter().any(|it| other.writes.contains(it));
        let last = self.steps.iter().rposition(written);
        let end = last.map_or(start, |last| start.max(last + 1));
        self.segment(other.name.clone(), start..end)
    }

    /// For each place before a step how many values pass it.
    fn passing(&self) -> Vec<usize> {
        let mut last = std::collections::HashMap::new();
        for (i, step) in self.steps.iter().enumerate() {
            for &read in step.reads.iter().flatten() {
                last.insert(read, i);
            }
        }
        let mut change = vec![0isize; self.steps.len() + 2];
        for (i, step) in self.steps.iter().enumerate() {
            for write in &step.writes {
                if let Some(&end) = last.get(write) {
                    change[i + 1] += 1;
                    change[end + 1] -= 1;
                }
            }
        }
        let running = change.iter().scan(0isize, |sum, c| {
            *sum += c;
            Some(*sum)
        });
        running.map(|n| n.max(0) as usize).collect()
    }
}

/// One segment a block, one before and one behind them where sites stand there.
pub fn segments(network: &Network, structure: &Structure) -> Vec<Segment> {
    let unit = |site: usize| {
        structure
            .blocks
            .iter()
            .position(|b| b.sites.contains(&site))
    };
    let name = |site: usize| {
        unit(site).map_or_else(
            || structure.sites[site].path.clone(),
            |b| structure.blocks[b].path.clone(),
        )
    };
    let placed = network
        .steps
        .iter()
        .enumerate()
        .filter_map(|(i, step)| match step.kind {
            Kind::Site(site) => Some((i, site)),
            _ => None,
        });
    let placed: Vec<(usize, usize)> = placed.collect();
    let passing = network.passing();
    let mut segments = Vec::new();
    let mut start = 0;
    for (k, &(at, site)) in placed.iter().enumerate() {
        let cut = match placed.get(k + 1) {
            // Block parts that stand between others stay with what surrounds them.
            Some(&(_, next)) if unit(next) == unit(site) => continue,
            Some(&(next_at, _)) => (at + 1..=next_at)
                .min_by_key(|&place| passing[place])
                .unwrap_or(next_at),
            None => network.steps.len(),
        };
        segments.push(network.segment(name(site), start..cut));
        start = cut;
    }
    segments
}
