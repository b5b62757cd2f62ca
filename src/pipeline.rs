//! The road from a float model and a few images to a verified quantised model. Read [`Quantizer::quantize`] first.

use std::path::Path;
use std::time::Instant;

use vitq_onnx::{Model, SaveOptions};
use vitq_passes::check::check;
use vitq_passes::plan::{Plan, Rotation};
use vitq_passes::quantise::{ApplyError, apply, apply_to_sites};
use vitq_passes::target::{ONNX_RUNTIME, Target, Values};

use crate::batches::Batches;
use crate::budget::{self, Budget};
use crate::calibrate::{
    self, Codes, Effort, Feeds, Outcome, Part, Progress, Ranks, Scope, Settings, ranges, ranks,
};
use crate::contract::Source;
use crate::error::Error;
use crate::input::Dataset;
use crate::model::FloatModel;
use crate::output;
use crate::quant::FLOAT_BITS;
use crate::report::{FileReport, Report, SitesReport};
use crate::run::Runtime;
use crate::verify::{Candidate, Verification, verify};

/// Samples that calibration takes unless told otherwise, as in the RepQ-ViT paper.
pub const CALIBRATION_SAMPLES: usize = 32;

/// Work of the low-rank branches that are chosen by themselves, for each of the Linears' multiply-accumulates.
pub const RANK_SHARE: f64 = 0.02;

/// Most samples that blocks learn from: their values wait between two blocks.
#[cfg(feature = "learn")]
pub const RECONSTRUCTION_SAMPLES: usize = 1024;

/// Inputs that may share a scale of a weight: what ONNX Runtime has kernels for.
pub const BLOCKS: [usize; 3] = [32, 64, 128];

/// Widest activations that residual streams are rotated for. A rotation spreads outliers, which pays where codes are few: on
/// ViT-Tiny (2,000 images that nothing was chosen on) agreement with float at W4A4 goes from 58.4 to 62.2 %. At W4A6, W6A6, W8A8 and W4A8
/// the logits come nearer too (0.2 to 0.9 dB), but the decisions do not: 78.3 to 77.8, 89.1 to 89.5, 96.1 to 95.7 and 81.6 to 79.7 %.
const ROTATED_BITS: u32 = 5;

/// Rotations of the residual streams that the best effort tries.
const ROTATIONS: u64 = 8;

/// Quantises vision transformers.
///
/// ```no_run
/// use std::path::Path;
/// use vitq::{Job, NoProgress, Quantizer, Source};
///
/// let images = Source { path: "images/calib".into(), ..Source::default() };
/// let job = Job { model: Path::new("vit.onnx"), calibration: &images, evaluation: None, out: Path::new("vit.int8.onnx") };
/// let report = Quantizer::new().bits(8, 8).quantize(&job, &NoProgress)?;
/// println!("{report}");
/// # Ok::<(), vitq::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Quantizer {
    pub(crate) settings: Settings,
    pub(crate) samples: usize,
    pub(crate) budget: Option<Budget>,
    auto_rank: Option<f64>,
    #[cfg(feature = "learn")]
    reconstruction: Option<crate::learn::BlockOptions>,
    #[cfg(feature = "learn")]
    learning: Option<Learning>,
    #[cfg(feature = "learn")]
    checkpoint: Option<crate::learn::Checkpoint>,
    pub(crate) target: Target,
}

/// How the quantised network learns.
#[cfg(feature = "learn")]
#[derive(Clone, Debug, Default)]
pub struct Learning {
    /// What is learned, and how fast.
    pub options: crate::learn::Options,
    /// On how many samples, the first ones; nine of ten unless told otherwise.
    pub samples: Option<usize>,
}

#[cfg(feature = "learn")]
impl Learning {
    fn count(&self, samples: &Dataset) -> usize {
        self.samples.unwrap_or_else(|| nine_of_ten(samples))
    }
}

/// How many samples blocks learn from.
#[cfg(feature = "learn")]
fn block_samples(samples: &Dataset) -> usize {
    nine_of_ten(samples).min(RECONSTRUCTION_SAMPLES)
}

/// The others are left to verify on.
#[cfg(feature = "learn")]
fn nine_of_ten(samples: &Dataset) -> usize {
    samples.len() - samples.len() / 10
}

/// Files of one quantisation.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// The float model.
    pub model: &'a Path,
    /// Samples to calibrate on: the first ones.
    pub calibration: &'a Source,
    /// Samples to verify on, all of them; without them those of `calibration` that were not calibrated on, at most as
    /// many as were.
    pub evaluation: Option<&'a Source>,
    /// Where the quantised model goes.
    pub out: &'a Path,
}

/// Tells nobody how far the work is.
pub struct NoProgress;

impl Progress for NoProgress {
    fn stage(&self, _: &str, _: u64) {}
    fn advance(&self, _: u64) {}
}

impl Default for Quantizer {
    fn default() -> Self {
        Self::new()
    }
}

impl Quantizer {
    /// W8A8, Linears only, 32 samples, guarded, for ONNX Runtime.
    pub fn new() -> Self {
        Self {
            settings: Settings::default(),
            samples: CALIBRATION_SAMPLES,
            budget: None,
            auto_rank: None,
            #[cfg(feature = "learn")]
            reconstruction: None,
            #[cfg(feature = "learn")]
            learning: None,
            #[cfg(feature = "learn")]
            checkpoint: None,
            target: ONNX_RUNTIME,
        }
    }

    /// Width of weights and of activations, 2 to 8 bits each.
    pub fn bits(mut self, weights: u32, activations: u32) -> Self {
        (self.settings.weight_bits, self.settings.activation_bits) = (weights, activations);
        self
    }

    /// All other settings of the numbers.
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = Settings {
            target_codes: self.target.codes,
            narrow_sums: self.target.narrow_sums,
            target_blocks: self.target.blocks,
            ..settings
        };
        self
    }

    /// How many samples are calibrated on, where there are as many.
    pub fn samples(mut self, samples: usize) -> Self {
        self.samples = samples;
        self
    }

    /// Chooses the widths of the sites so that a budget is kept; those of the settings are then the narrowest weights that
    /// may be chosen, and the width of all activations.
    pub fn budget(mut self, budget: Option<Budget>) -> Self {
        self.budget = budget;
        self
    }

    /// Adds low-rank branches where they take the most error away, for at most this share of the Linears' multiply-accumulates
    /// ([`RANK_SHARE`] is a usual one).
    pub fn auto_rank(mut self, share: Option<f64>) -> Self {
        self.auto_rank = share;
        self
    }

    /// Lets the quantised network learn block by block behind calibration, from nine of ten samples, at most
    /// [`RECONSTRUCTION_SAMPLES`].
    #[cfg(feature = "learn")]
    pub fn reconstruction(mut self, options: crate::learn::BlockOptions) -> Self {
        self.reconstruction = Some(options);
        self
    }

    /// Lets the quantised network learn from its float original behind calibration.
    #[cfg(feature = "learn")]
    pub fn learning(mut self, learning: Learning) -> Self {
        self.learning = Some(learning);
        self
    }

    /// Keeps what was learned so far, and goes on from it where the checkpoint says so. Blocks that learn before the whole network does
    /// have a file beside it.
    #[cfg(feature = "learn")]
    pub fn checkpoint(mut self, checkpoint: Option<crate::learn::Checkpoint>) -> Self {
        self.checkpoint = checkpoint;
        self
    }

    /// How many of the calibration samples, the first ones, something was chosen on.
    #[cfg_attr(not(feature = "learn"), expect(unused_variables))]
    fn seen(&self, calibration: &Dataset) -> usize {
        #[cfg(feature = "learn")]
        return self.samples.max(self.learned_from(calibration));
        #[cfg(not(feature = "learn"))]
        self.samples
    }

    /// The runtime that the model is written for.
    pub fn target(mut self, target: Target) -> Self {
        self.target = target;
        self.settings.target_codes = target.codes;
        self.settings.narrow_sums = target.narrow_sums;
        self.settings.target_blocks = target.blocks;
        self
    }

    /// The whole road.
    ///
    /// # Errors
    /// Anything about the files that stands against it; `job.out` is then as it was before.
    pub fn quantize(&self, job: &Job<'_>, progress: &dyn Progress) -> Result<Report, Error> {
        let clock = Instant::now();
        output::check(job.out, &[job.model])?;
        let model = FloatModel::open(job.model)?; // load → widen → simplify → recognise
        let calibration = job.calibration.open(&model)?;
        let evaluation = job
            .evaluation
            .map(|source| source.open(&model))
            .transpose()?;
        let outcome = self.plan(&model, &calibration, progress)?; // observe, search, solve
        let quantised = self.apply(&model, &outcome.plan)?; // fold, quantise, lower, check
        let seconds = clock.elapsed().as_secs_f64();
        let verification = self.verify(
            &model,
            (job.out, &quantised),
            &calibration,
            evaluation.as_ref(),
            progress,
        )?;
        // Last, so that whatever fails before leaves no file that looks like a result.
        vitq_onnx::save(&quantised, job.out, &SaveOptions::default())?;
        Ok(Report {
            version: crate::report::VERSION,
            vitq: env!("CARGO_PKG_VERSION"),
            model: FileReport::of(job.model)?,
            widened: model.widened.types(),
            output: FileReport::of(job.out)?,
            target: self.target.name,
            settings: outcome.plan.settings.clone(),
            calibration: calibration.first(self.samples).describe(),
            reconstructed: outcome.reconstructed.clone(),
            learned: outcome.learned.clone(),
            seconds,
            sites: SitesReport::new(&model, &outcome, &self.target),
            verification,
            bench: None,
        })
    }

    /// Calibration alone: the numbers, and what was seen on the way to them.
    ///
    /// # Errors
    /// There is nothing to quantise, a name to keep float is no site's, the target cannot run the result, the budget cannot
    /// be kept, or a sample or the model does not work.
    pub fn plan(
        &self,
        model: &FloatModel,
        calibration: &Dataset,
        progress: &dyn Progress,
    ) -> Result<Outcome, Error> {
        model.require_sites(self.settings.scope)?;
        self.require_known_names(model)?;
        self.require_target(model)?;
        self.require_blocks()?;
        #[cfg(feature = "learn")]
        self.require_devices()?;
        if let Some(budget) = self.budget {
            return budget::plan(self, budget, (model, calibration), progress);
        }
        let feeds = Batches::new(calibration, 0..self.samples, model.batch());
        tracing::info!(
            feeds = feeds.len(),
            sites = model.structure.sites.len(),
            "calibrating"
        );
        let first = self.rotation(model);
        let mut best = self.plan_form(model, first, &feeds, progress)?;
        for other in self.other_rotations(first) {
            let outcome = self.plan_form(model, Some(other), &feeds, progress)?;
            tracing::info!(
                other.seed,
                db = outcome.sqnr_db,
                than = best.sqnr_db,
                "tried"
            );
            if outcome.sqnr_db > best.sqnr_db {
                best = outcome;
            }
        }
        #[cfg(feature = "learn")]
        self.reconstruct(model, &mut best, calibration, progress)?;
        #[cfg(feature = "learn")]
        self.learn(model, &mut best, calibration, progress)?;
        self.observe_values(model, &mut best.plan, &feeds, progress)?;
        Ok(best)
    }

    /// Fails before calibration where there is nothing to learn on.
    #[cfg(feature = "learn")]
    fn require_devices(&self) -> Result<(), Error> {
        let blocks = self.reconstruction.iter().map(|it| it.device);
        let network = self.learning.iter().map(|it| it.options.device);
        for device in blocks.chain(network) {
            device.require()?;
        }
        Ok(())
    }

    /// How many samples, the first ones, are learned from.
    #[cfg(feature = "learn")]
    fn learned_from(&self, samples: &Dataset) -> usize {
        let blocks = self.reconstruction.map(|_| block_samples(samples));
        let network = self.learning.as_ref().map(|it| it.count(samples));
        blocks.max(network).unwrap_or(0)
    }

    /// Improves the numbers block by block, where that is asked for.
    #[cfg(feature = "learn")]
    fn reconstruct(
        &self,
        model: &FloatModel,
        outcome: &mut Outcome,
        samples: &Dataset,
        progress: &dyn Progress,
    ) -> Result<(), Error> {
        if let Some(options) = &self.reconstruction {
            let written = model.written(outcome.plan.rotation)?;
            let form = (written.graph(), written.structure());
            let feeds = Batches::new(samples, 0..block_samples(samples), model.batch());
            let plan = &mut outcome.plan;
            let checkpoint = match self.learning {
                Some(_) => self
                    .checkpoint
                    .as_ref()
                    .map(crate::learn::Checkpoint::of_blocks),
                None => self.checkpoint.clone(),
            };
            let how = (options, checkpoint.as_ref());
            let seen = (&feeds as &dyn Feeds, self.calibrated(model, samples));
            let report = crate::learn::reconstruct(form, plan, seen, how, progress)?;
            outcome.reconstructed = Some(report);
        }
        Ok(())
    }

    /// Ranges of what the target wants quantised between sites, seen where those are quantised already.
    fn observe_values(
        &self,
        model: &FloatModel,
        plan: &mut Plan,
        feeds: &Batches<'_>,
        progress: &dyn Progress,
    ) -> Result<(), Error> {
        if self.target.values == Values::All {
            let written = model.written(plan.rotation)?;
            let mut graph = written.graph().clone();
            apply_to_sites(&mut graph, written.structure(), plan, &self.target)
                .map_err(|source| self.cannot_apply(model, source))?;
            plan.values = ranges::observe(&graph, feeds, self.settings.executor, progress)?;
        }
        Ok(())
    }

    fn cannot_apply(&self, model: &FloatModel, source: ApplyError) -> Error {
        Error::Apply {
            path: model.path.clone(),
            source,
        }
    }

    /// How many feeds calibration sees.
    #[cfg(feature = "learn")]
    fn calibrated(&self, model: &FloatModel, samples: &Dataset) -> usize {
        Batches::new(samples, 0..self.samples, model.batch()).len()
    }

    /// Improves the numbers by gradients, where that is asked for.
    #[cfg(feature = "learn")]
    fn learn(
        &self,
        model: &FloatModel,
        outcome: &mut Outcome,
        samples: &Dataset,
        progress: &dyn Progress,
    ) -> Result<(), Error> {
        if let Some(learning) = &self.learning {
            let written = model.written(outcome.plan.rotation)?;
            let form = (written.graph(), written.structure());
            let feeds = Batches::new(samples, 0..learning.count(samples), model.batch());
            let how = (&learning.options, self.checkpoint.as_ref());
            let seen = (&feeds as &dyn Feeds, self.calibrated(model, samples));
            let course = crate::learn::distil(form, &mut outcome.plan, seen, how, progress)?;
            outcome.learned = Some(course);
        }
        Ok(())
    }

    /// The plan for the model as it is, or rotated.
    fn plan_form(
        &self,
        model: &FloatModel,
        rotation: Option<Rotation>,
        feeds: &Batches<'_>,
        progress: &dyn Progress,
    ) -> Result<Outcome, Error> {
        let written = model.written(rotation)?;
        let (graph, structure) = (written.graph(), written.structure());
        let mut settings = self.settings.clone();
        settings.weight_only = self.target.weight_only(structure);
        if let Some(share) = self.auto_rank {
            let form = (graph, structure, feeds as &dyn Feeds);
            settings.ranks = ranks::choose(form, &settings, share, progress)?;
        }
        let mut outcome = calibrate::calibrate(graph, structure, feeds, &settings, progress)?;
        outcome.plan.model = model.fingerprint.clone();
        outcome.plan.rotation = rotation;
        outcome.plan.settings = self.described(feeds.samples());
        Ok(outcome)
    }

    /// What is rotated of what can be: residual streams where activations have few codes; V where it is quantised to evenly
    /// spaced levels (on ViT-Tiny, scope all: 0.5 dB at W8A8, 0.4 at uniform W4A4; codebooks at W4A4 lose 0.2 by it on average).
    pub fn rotation(&self, model: &FloatModel) -> Option<Rotation> {
        let settings = &self.settings;
        let asked = settings.has(Part::Rotation);
        let few_codes = settings.activation_bits <= ROTATED_BITS;
        let rotation = Rotation {
            seed: settings.seed,
            streams: asked && few_codes && model.has_rotatable_streams(),
            values: asked
                && settings.scope == Scope::All
                && !settings.codes.codebook(settings.activation_bits)
                && model.has_value_paths(),
        };
        (rotation.streams || rotation.values).then_some(rotation)
    }

    /// Further rotations that the best effort tries. How near a solution comes to the float outputs on the samples that it
    /// was made from tells rotations apart on other samples too: on ViT-Tiny W4A4 (all), eight of them gave 7.9 to 8.8 dB
    /// here and 6.0 to 6.8 dB on 300 other images, with a correlation of 0.8.
    fn other_rotations(&self, first: Option<Rotation>) -> impl Iterator<Item = Rotation> + use<> {
        let best = self.settings.effort == Effort::Best;
        let first = first.filter(|it| best && it.streams);
        first.into_iter().flat_map(|first| {
            (1..ROTATIONS).map(move |i| Rotation {
                seed: first.seed.wrapping_add(i),
                ..first
            })
        })
    }

    /// Emission alone: the model that a plan stands for.
    ///
    /// # Errors
    /// The plan does not fit the model.
    pub fn apply(&self, model: &FloatModel, plan: &Plan) -> Result<Model, Error> {
        let written = model.written(plan.rotation)?;
        let mut graph = written.graph().clone();
        let report = apply(&mut graph, written.structure(), plan, &self.target)
            .map_err(|source| self.cannot_apply(model, source))?;
        for it in &report.declined {
            tracing::warn!(it.node, it.op_type, it.reason, "stays float");
        }
        tracing::info!(
            quantisers = report.quantisers,
            opset = report.opset,
            units = report.units,
            "applied"
        );
        model.widened.restore(&mut graph);
        check(&graph).map_err(|faults| Error::Unsound {
            path: model.path.clone(),
            faults,
        })?;
        Ok(graph.export())
    }

    /// Calibrates, emits and verifies without writing a file.
    ///
    /// # Errors
    /// As [`Quantizer::plan`] and [`verify`], and [`Error::NothingToVerify`] without samples to verify on.
    pub fn try_out(
        &self,
        model: &FloatModel,
        calibration: &Dataset,
        evaluation: Option<&Dataset>,
        progress: &dyn Progress,
    ) -> Result<(Outcome, Verification), Error> {
        let outcome = self.plan(model, calibration, progress)?;
        let quantised = self.apply(model, &outcome.plan)?;
        let candidate = (model.path.as_path(), &quantised);
        let verification = self
            .verify(model, candidate, calibration, evaluation, progress)?
            .ok_or(Error::NothingToVerify)?;
        Ok((outcome, verification))
    }

    /// On the samples to evaluate on, else on what calibration left over; `None` where it left nothing.
    fn verify(
        &self,
        model: &FloatModel,
        (path, message): (&Path, &Model),
        calibration: &Dataset,
        evaluation: Option<&Dataset>,
        progress: &dyn Progress,
    ) -> Result<Option<Verification>, Error> {
        let seen = self.seen(calibration);
        let data = match evaluation {
            Some(dataset) => Batches::new(dataset, 0..dataset.len(), model.batch()),
            None => Batches::new(calibration, seen..seen.saturating_mul(2), model.batch()),
        };
        if data.samples() == 0 {
            return Ok(None);
        }
        verify(
            model,
            Candidate { path, message },
            &data,
            self.settings.executor,
            progress,
        )
        .map(Some)
    }

    fn require_known_names(&self, model: &FloatModel) -> Result<(), Error> {
        let sites = &model.structure.sites;
        for name in &self.settings.keep_float {
            if !sites
                .iter()
                .any(|site| site.name == *name || site.path == *name)
            {
                let similar = sites
                    .iter()
                    .find(|site| site.path.contains(name.as_str()) || name.contains(&site.path));
                return Err(Error::UnknownSite {
                    name: name.clone(),
                    similar: similar.map(|site| site.path.clone()),
                });
            }
        }
        Ok(())
    }

    /// Fails before anything is calibrated where the target could not run the result.
    fn require_target(&self, model: &FloatModel) -> Result<(), Error> {
        let settings = &self.settings;
        let sites = model.structure.sites.iter();
        let mut quantised = sites.filter(|site| settings.float_reason(site).is_none());
        let fits = self.target.check(&model.graph).and_then(|()| {
            quantised.try_for_each(|it| {
                if settings.block.is_some() {
                    self.target.check_block(&it.name)?;
                }
                self.target.check_width(&it.name, settings.bits(it).1)
            })
        });
        fits.map_err(|source| Error::Target {
            path: model.path.clone(),
            source,
        })
    }

    /// Fails before anything is calibrated where weights can have no scale a block.
    fn require_blocks(&self) -> Result<(), Error> {
        let settings = &self.settings;
        let Some(block) = settings.block else {
            return Ok(());
        };
        let reason = if !BLOCKS.contains(&block) {
            "a block has 32, 64 or 128 inputs"
        } else if settings.activation_bits != FLOAT_BITS {
            "a product of integers takes one scale an output channel: give --bits w4a16 or w8a16, which leave activations float, or leave --block out"
        } else if settings.codes == Codes::Codebook {
            "a scale a block goes with evenly spaced levels: leave --codes codebook out"
        } else {
            return Ok(());
        };
        Err(Error::Block { block, reason })
    }

    /// The settings in words, for the plan and the emitted model's metadata.
    pub(crate) fn described(&self, samples: usize) -> std::collections::BTreeMap<String, String> {
        let s = &self.settings;
        let without: Vec<_> = s.without.iter().map(|part| part.name()).collect();
        let mixed = s.widths.as_ref().map_or("", |_| ", site by site");
        let rank = match (&s.ranks, self.auto_rank) {
            (_, Some(_)) | (Ranks::Sites(_), _) => "auto".into(),
            (Ranks::None, _) => "0".into(),
            (Ranks::All(rank), _) => rank.to_string(),
        };
        let word = |value: &dyn std::fmt::Debug| format!("{value:?}").to_lowercase();
        let entries = [
            (
                "bits",
                format!("w{}a{}{mixed}", s.weight_bits, s.activation_bits),
            ),
            (
                "block",
                s.block
                    .map_or_else(|| "none".into(), |block| block.to_string()),
            ),
            ("scope", word(&s.scope)),
            ("codes", word(&s.codes)),
            ("effort", word(&s.effort)),
            (
                "edge_bits",
                s.edge_bits
                    .map_or_else(|| "as bits".into(), |bits| bits.to_string()),
            ),
            ("rank", rank),
            ("branch_bits", s.branch_bits.to_string()),
            ("keep_float", s.keep_float.join(", ")),
            ("without", without.join(", ")),
            ("seed", s.seed.to_string()),
            ("samples", samples.to_string()),
            ("target", self.target.name.to_owned()),
        ];
        // tract is what older plans, too, were made with.
        let executor = (s.executor != Runtime::Tract).then(|| ("executor", s.executor.to_string()));
        entries
            .into_iter()
            .chain(executor)
            .map(|(key, value)| (key.to_owned(), value))
            .collect()
    }
}
