//! What is drawn at random, for a seed.

use std::collections::BTreeSet;

/// What SplitMix64's state moves by.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn fraction(bits: u64) -> f32 {
    (bits >> 40) as f32 / (1u64 << 24) as f32
}

/// SplitMix64 (Steele et al. 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A stream of its own for each list of numbers.
    pub fn new(seeds: &[u64]) -> Self {
        let mut random = Random(0);
        for seed in seeds {
            random.0 ^= seed;
            random.0 = random.bits();
        }
        random
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mix(self.0)
    }

    /// 0..1
    pub fn unit(&mut self) -> f32 {
        fraction(self.bits())
    }

    /// Fisher and Yates.
    pub fn shuffle(&mut self, order: &mut [usize]) {
        for i in (1..order.len()).rev() {
            order.swap(i, (self.bits() % (i as u64 + 1)) as usize);
        }
    }
}

/// Of how many samples one is held out.
const HELD_OUT: usize = 8;

/// Samples held out, and those learned from; the first `calibrated` of them are those that calibration saw.
///
/// Held out are such as it did not see, if there are enough: of the others it knows more than it will of a user's, so that what is learned
/// seems to gain less than it does.
pub fn split(count: usize, calibrated: usize) -> (Vec<usize>, Vec<usize>) {
    let wanted = (count / HELD_OUT).max(1);
    let start = match count.saturating_sub(calibrated) >= wanted {
        true => calibrated,
        false => 0,
    };
    // In the middle of each of so many equal parts.
    let place = |i: usize| start + (2 * i + 1) * (count - start) / (2 * wanted);
    let held_out: BTreeSet<usize> = (0..wanted).map(place).collect();
    (0..count).partition(|i| held_out.contains(i))
}

/// Which samples each step learns from: all of them before any comes again, in another order each time.
pub struct Draw<'a> {
    samples: &'a [usize],
    waiting: Vec<usize>,
    random: Random,
}

impl<'a> Draw<'a> {
    /// From `samples`, at least one.
    pub fn new(samples: &'a [usize], seed: u64) -> Self {
        Self {
            samples,
            waiting: Vec::new(),
            random: Random::new(&[seed]),
        }
    }

    /// The samples of a step.
    pub fn batch(&mut self, size: usize) -> Vec<usize> {
        let mut chosen = Vec::with_capacity(size);
        while chosen.len() < size && !self.samples.is_empty() {
            match self.waiting.pop() {
                Some(sample) => chosen.push(sample),
                None => {
                    self.waiting = self.samples.to_vec();
                    self.random.shuffle(&mut self.waiting);
                }
            }
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_calibration_did_not_see_is_held_out() {
        let held_out = |count, calibrated| split(count, calibrated).0;
        assert_eq!(held_out(90, 32).len(), 11);
        assert!(held_out(90, 32).iter().all(|it| (32..90).contains(it)));
        // As many as there are.
        assert_eq!(held_out(16, 14), [14, 15]);
        // Too few: from all of them.
        assert_eq!(held_out(16, 15), [4, 12]);
        assert_eq!(held_out(16, 40), [4, 12]);
        for count in 2..40 {
            for calibrated in 0..count + 2 {
                let (held_out, learned_from) = split(count, calibrated);
                assert_eq!(held_out.len(), (count / HELD_OUT).max(1));
                assert_eq!(held_out.len() + learned_from.len(), count);
            }
        }
    }
}
