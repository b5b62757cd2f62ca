//! What is drawn at random, for a seed.

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

/// Samples held out, and those learned from.
pub fn split(count: usize) -> (Vec<usize>, Vec<usize>) {
    (0..count).partition(|i| i % HELD_OUT == HELD_OUT.min(count) - 1)
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
