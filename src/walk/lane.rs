//! One calibration input on its way through the network.

use std::collections::HashMap;
use std::sync::Arc;

use tract_onnx::prelude::{OutletId, Tensor};

/// Which of a lane's two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    /// What the float network computes.
    Float,
    /// What the network computes whose earlier sites are quantised.
    Quantised,
}

/// Live values of one input.
#[derive(Clone, Default)]
pub struct Lane {
    pub(super) float: HashMap<OutletId, Arc<Tensor>>,
    /// Only the values that differ from the float ones.
    pub(super) quantised: HashMap<OutletId, Arc<Tensor>>,
}

impl Lane {
    pub(super) fn float_only(&self) -> Lane {
        Lane { float: self.float.clone(), quantised: HashMap::new() }
    }

    pub(super) fn value(&self, outlet: OutletId, world: World) -> Option<&Arc<Tensor>> {
        let other = match world {
            World::Quantised => self.quantised.get(&outlet),
            World::Float => None,
        };
        other.or_else(|| self.float.get(&outlet))
    }
}
