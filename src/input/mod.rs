//! What is fed to a model: folders of images, stored arrays, and the preprocessing between.
//!
//! ```text
//! folder ─► image file ─► pixels ─► resize ─► crop ─► (x/255 - mean)/std ─┐
//! .npy .npz .safetensors ─► convert to the input's type ──────────────────┴─► Sample
//! ```

mod array;
mod dataset;
mod error;
mod folder;
mod geometry;
mod image_file;
mod model_input;
mod pixels;
mod preprocess;
mod resample;
mod stored;

pub use array::Array;
pub use dataset::{Dataset, InputSpec, Sample};
pub use error::InputError;
pub use folder::Labels;
pub use geometry::{Resize, Size};
pub use model_input::{ElementType, ModelInput};
pub use pixels::Channels;
pub use preprocess::{Preprocess, Preset};
pub use resample::Interpolation;
