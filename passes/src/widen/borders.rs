//! The types that a model's users know, given back to its inputs and outputs.

use super::{WidenError, Widened, spelled};
use crate::ir::Graph;

impl Widened {
    /// Finds out, before any work is done, whether [`Widened::restore`] can do its.
    ///
    /// # Errors
    /// [`WidenError::Captured`].
    pub fn check(&self, graph: &Graph) -> Result<(), WidenError> {
        for (name, dtype) in self.inputs.iter().chain(&self.outputs) {
            if graph
                .find(name)
                .is_some_and(|value| graph.is_captured(value))
            {
                return Err(WidenError::Captured {
                    value: name.clone(),
                    dtype: spelled(*dtype),
                });
            }
        }
        Ok(())
    }

    /// Gives inputs and outputs their types back, each with a Cast between it and the float32 inside.
    ///
    /// ```text
    /// float x → … → float y      →      float16 x → Cast<to = float> → … → Cast<to = float16> → float16 y
    /// ```
    pub fn restore(&self, graph: &mut Graph) {
        for (name, dtype) in &self.inputs {
            graph.store_input(name, *dtype);
        }
        for (name, dtype) in &self.outputs {
            graph.store_output(name, *dtype);
        }
    }
}
