//! The float model as the rest of the crate sees it: read, found sound, simplified and recognised.

mod file;
mod fingerprint;
mod finite;
mod inputs;
mod sound;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use vitq_onnx::Model;
use vitq_passes::ir::{Graph, NodeId, Op};
use vitq_passes::plan::Rotation;
use vitq_passes::simplify::simplify;
use vitq_passes::structure::{SiteKind, Structure, recognise};
use vitq_passes::transform::{TransformError, rotate, rotate_values};
use vitq_passes::widen::{Widened, widen};

use crate::calibrate::Scope;
use crate::error::Error;
use crate::input::ModelInput;
pub use file::ModelFile;
pub use fingerprint::fingerprint;

/// A graph that computes what the float model computes, with what was recognised in it.
pub struct Form {
    graph: Graph,
    structure: Structure,
}

/// The form that a plan is made for.
pub enum Written<'m> {
    /// The simplified graph.
    Plain(&'m FloatModel),
    /// With some channels rotated; the same sites, their order apart.
    Rotated(Arc<Form>),
}

impl Written<'_> {
    /// The graph.
    pub fn graph(&self) -> &Graph {
        match self {
            Written::Plain(model) => &model.graph,
            Written::Rotated(form) => &form.graph,
        }
    }

    /// What was recognised in it.
    pub fn structure(&self) -> &Structure {
        match self {
            Written::Plain(model) => &model.structure,
            Written::Rotated(form) => &form.structure,
        }
    }
}

/// A float model with what was recognised in it.
pub struct FloatModel {
    /// Where it was read from.
    pub path: PathBuf,
    /// The file as it is, external data inside; in float32 where it is narrower.
    pub message: Model,
    /// The simplified graph, which plans and quantised models are made from.
    pub graph: Graph,
    /// Sites, norms and blocks of [`FloatModel::graph`].
    pub structure: Structure,
    /// The rotation that was last asked for.
    rotated: Mutex<Option<(Rotation, Arc<Form>)>>,
    /// The graph's inputs.
    pub inputs: Vec<ModelInput>,
    /// What was narrower than float32 in the file.
    pub widened: Widened,
    /// Identifies the file's contents in a plan.
    pub fingerprint: String,
}

impl FloatModel {
    /// Load → widen → simplify → recognise.
    ///
    /// # Errors
    /// The file is missing or broken, holds weights that are no numbers, or has inputs that cannot be fed.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let mut message = vitq_onnx::load(path)?.model;
        let fingerprint = fingerprint(&message);
        let cannot_widen = |source| Error::Widen {
            path: path.into(),
            source,
        };
        let widened = widen(&mut message).map_err(cannot_widen)?;
        let ModelFile {
            message,
            mut graph,
            inputs,
        } = ModelFile::of(path, message)?;
        widened.check(&graph).map_err(cannot_widen)?;
        finite::check(&graph).map_err(|found| found.into_error(path))?;
        let simplified = simplify(&mut graph);
        tracing::debug!("simplified\n{simplified}");
        let structure = recognise(&graph);
        Ok(Self {
            path: path.into(),
            message,
            graph,
            structure,
            rotated: Mutex::default(),
            inputs,
            widened,
            fingerprint,
        })
    }

    /// The model as it is, or rotated.
    ///
    /// # Errors
    /// A weight that is no plain float stands in the way of a rotation.
    pub fn written(&self, rotation: Option<Rotation>) -> Result<Written<'_>, Error> {
        let rotated = rotation.map(|it| self.rotated(it)).transpose()?;
        Ok(rotated.map_or(Written::Plain(self), Written::Rotated))
    }

    /// Whether a residual stream can be rotated.
    pub fn has_rotatable_streams(&self) -> bool {
        let mut streams = self.structure.streams.iter();
        streams.any(|stream| stream.declined.is_none())
    }

    /// Whether V can be rotated in an attention.
    pub fn has_value_paths(&self) -> bool {
        !self.structure.value_paths.is_empty()
    }

    fn rotated(&self, rotation: Rotation) -> Result<Arc<Form>, Error> {
        let mut last = self.rotated.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, form)) = last.as_ref().filter(|(known, _)| *known == rotation) {
            return Ok(Arc::clone(form));
        }
        let mut graph = self.graph.clone();
        let failed = |source: TransformError| Error::Apply {
            path: self.path.clone(),
            source: source.into(),
        };
        let mut structure = self.structure.clone();
        if rotation.values {
            let values = rotate_values(&mut graph, &structure, rotation.seed).map_err(failed)?;
            structure = recognise(&graph);
            tracing::info!(values, "rotated");
        }
        if rotation.streams {
            let streams = rotate(&mut graph, &structure, rotation.seed).map_err(failed)?;
            tracing::info!(streams, of = structure.streams.len(), "rotated");
            structure = recognise(&graph);
        }
        let form = Arc::new(Form { graph, structure });
        *last = Some((rotation, Arc::clone(&form)));
        Ok(form)
    }

    /// The batch size that the file fixes, or 1 where it is symbolic.
    pub fn batch(&self) -> usize {
        self.inputs
            .iter()
            .find_map(|input| input.dims.first().copied().flatten())
            .unwrap_or(1)
    }

    /// How many Linears there are, the head among them.
    pub fn linears(&self) -> usize {
        self.structure
            .sites
            .iter()
            .filter(|site| site.kind == SiteKind::Linear)
            .count()
    }

    /// Fails where there is nothing to quantise in `scope`, and says what stood in the way.
    ///
    /// # Errors
    /// [`Error::NoSites`], or [`Error::Unusable`] where the model is quantised already.
    pub fn require_sites(&self, scope: Scope) -> Result<(), Error> {
        let quantised = |(_, op): &(NodeId, &Op)| op.is("QuantizeLinear");
        if let Some((node, _)) = self.graph.ops().find(quantised) {
            let label = self.graph.label(node);
            let reason = format!(
                "it is quantised already (node `{label}` is QuantizeLinear); give the float model"
            );
            return Err(Error::Unusable {
                path: self.path.clone(),
                reason,
            });
        }
        let sites = &self.structure.sites;
        let in_scope = |kind| scope == Scope::All || kind == SiteKind::Linear;
        if sites.iter().any(|site| in_scope(site.kind)) {
            return Ok(());
        }
        let declined = self.structure.declined.iter();
        let declined = declined
            .map(|it| format!("{} ({}): {}", it.node, it.op_type, it.reason))
            .collect();
        Err(Error::NoSites {
            path: self.path.clone(),
            declined,
        })
    }
}
