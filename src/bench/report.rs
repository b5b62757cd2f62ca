//! What was measured, for people (`Display`) and for programs (JSON, field by field).

use std::fmt::{self, Display, Formatter};

use serde::Serialize;

use super::loaded::Loaded;
use super::{Fusion, Settings, Spread};
use crate::error::Error;
use crate::report::FileReport;
use crate::report::text::Bytes;
use crate::run::Runtime;

/// Version of the JSON form; within one, fields are only added.
pub const VERSION: u32 = 1;

/// Nodes that a warning names.
const SHOWN_NODES: usize = 4;

/// Models timed side by side.
#[derive(Clone, Debug, Serialize)]
pub struct Benchmark {
    /// [`VERSION`]
    pub version: u32,
    /// What ran them.
    pub runtime: String,
    /// Threads of one run.
    pub threads: usize,
    /// Samples of one run.
    pub batch: usize,
    /// How often every model had its turn.
    pub rounds: usize,
    /// The float model, then the others in the order given.
    pub models: Vec<ModelReport>,
    /// What a user should know.
    pub warnings: Vec<String>,
}

/// One model.
#[derive(Clone, Debug, Serialize)]
pub struct ModelReport {
    /// The file and its size on the disk.
    #[serde(flatten)]
    pub file: FileReport,
    /// Milliseconds of a run.
    pub ms: Spread,
    /// Float time / its time, round by round; 1 for the float model.
    pub times_as_fast: Spread,
    /// Peak memory of a process that loads it and runs it once; `null` where it isn't known.
    pub peak_bytes: Option<u64>,
    /// What the runtime made of its quantised products.
    pub fusion: Fusion,
}

impl Benchmark {
    /// From the milliseconds of each model in each round.
    pub(super) fn new(
        settings: &Settings,
        batch: usize,
        models: &[Loaded],
        rounds: &[Vec<f64>],
    ) -> Result<Self, Error> {
        let mut reports = Vec::new();
        for (i, model) in models.iter().enumerate() {
            let ms = Spread::of(rounds.iter().map(|round| round[i]));
            let faster = Spread::of(rounds.iter().map(|round| round[0] / round[i]));
            let (Some(ms), Some(times_as_fast)) = (ms, faster) else {
                return Err(Error::NoMeasure(
                    "nothing was timed: give --rounds 1 or more".into(),
                ));
            };
            reports.push(ModelReport {
                file: FileReport::of(&model.path)?,
                ms,
                times_as_fast,
                peak_bytes: None,
                fusion: model.fusion()?,
            });
        }
        Ok(Self {
            version: VERSION,
            runtime: runtime(settings),
            threads: settings.threads,
            batch,
            rounds: settings.rounds,
            warnings: reports[1..]
                .iter()
                .flat_map(ModelReport::warnings)
                .collect(),
            models: reports,
        })
    }
}

fn runtime(settings: &Settings) -> String {
    match (settings.runtime, settings.stock) {
        (Runtime::Tract, true) => "stock tract".into(),
        (Runtime::Tract, false) => "tract with vitq-tract".into(),
        (runtime, _) => runtime.to_string(),
    }
}

impl ModelReport {
    fn warnings(&self) -> Vec<String> {
        let path = self.file.path.display();
        let faster = self.times_as_fast.median;
        let slow = (faster <= 1.0).then(|| {
            format!("{path} is not faster than the float model: {faster:.2} times its speed")
        });
        let unfused = (self.fusion.unfused > 0).then(|| {
            format!(
                "{path}: {} quantised products run in float{}",
                self.fusion.unfused,
                self.nodes()
            )
        });
        [slow, unfused].into_iter().flatten().collect()
    }

    /// A few names of unfused nodes.
    fn nodes(&self) -> String {
        let nodes = &self.fusion.unfused_nodes;
        let shown = nodes[..nodes.len().min(SHOWN_NODES)].join(", ");
        match nodes.len() {
            0 => String::new(),
            n if n > SHOWN_NODES => format!(": {shown} and {} more", n - SHOWN_NODES),
            _ => format!(": {shown}"),
        }
    }

    fn integer_products(&self) -> String {
        let counts = self.fusion.integer.iter();
        let counts: Vec<String> = counts.map(|(op, count)| format!("{count} {op}")).collect();
        counts.join(", ")
    }
}

impl Display for Benchmark {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}, {} thread(s), batch {}, {} rounds; medians (quartiles)\n",
            self.runtime, self.threads, self.batch, self.rounds
        )?;
        let paths = self
            .models
            .iter()
            .map(|it| it.file.path.display().to_string());
        let width = paths
            .map(|path| path.chars().count())
            .max()
            .unwrap_or(0)
            .max(5);
        writeln!(
            f,
            "{:width$}  {:>10}  {:>10}  {:>24}  {:>22}  in integers",
            "model", "size", "memory", "ms", "times as fast"
        )?;
        for model in &self.models {
            let known = model.peak_bytes.map(|peak| Bytes(peak).to_string());
            writeln!(
                f,
                "{:width$}  {:>10}  {:>10}  {:>24}  {:>22}  {}",
                model.file.path.display().to_string(),
                Bytes(model.file.bytes).to_string(),
                known.unwrap_or_else(|| "?".into()),
                model.ms.to_string(),
                model.times_as_fast.to_string(),
                model.integer_products()
            )?;
        }
        let mut warnings = self.warnings.iter();
        warnings.try_for_each(|it| writeln!(f, "\nwarning: {it}"))
    }
}

impl Display for Spread {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.2} ({:.2} to {:.2})",
            self.median, self.low, self.high
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(faster: f64, unfused_nodes: Vec<String>) -> ModelReport {
        let spread = Spread {
            low: faster,
            median: faster,
            high: faster,
        };
        ModelReport {
            file: FileReport {
                path: "q.onnx".into(),
                bytes: 1,
            },
            ms: spread,
            times_as_fast: spread,
            peak_bytes: None,
            fusion: Fusion {
                unfused: unfused_nodes.len(),
                unfused_nodes,
                ..Fusion::default()
            },
        }
    }

    #[test]
    fn what_is_slow_or_not_fused_is_told() {
        assert_eq!(model(1.5, vec![]).warnings(), [""; 0]);
        let slow = model(0.5, vec![]).warnings();
        assert!(slow[0].contains("q.onnx is not faster"), "{slow:?}");
        let names = (0..6).map(|i| format!("fc{i}")).collect();
        let unfused = model(1.5, names).warnings();
        assert!(unfused[0].contains("6 quantised products"), "{unfused:?}");
        assert!(unfused[0].ends_with("fc3 and 2 more"), "{unfused:?}");
    }
}
