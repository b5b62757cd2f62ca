//! ONNX files and messages.
//!
//! [`pb`] holds the messages of the ONNX schema; wherever one holds another it does so as
//! [`Lossless`], which keeps the fields that the schema does not know, so that reading and writing a
//! model changes nothing that nobody asked to change.

mod dtype;
mod file;
mod lossless;
mod tensor;

pub use dtype::DataType;
pub use file::{ExternalProblem, LoadError, Loaded, SaveError, SaveOptions, load, save};
pub use lossless::{KnownTags, Lossless};
pub use tensor::{Tensor, TensorError, TensorProblem};

/// The messages of `onnx.proto`, generated.
#[allow(missing_docs)]
pub mod pb {
    include!(concat!(env!("OUT_DIR"), "/onnx.rs"));
}

/// Field numbers by message, generated.
mod tags {
    include!(concat!(env!("OUT_DIR"), "/tags.rs"));
}

/// A whole file.
pub type Model = Lossless<pb::ModelProto>;
/// A graph: the main one, or the body of a control-flow node.
pub type GraphMsg = Lossless<pb::GraphProto>;
/// An operator call.
pub type NodeMsg = Lossless<pb::NodeProto>;
/// A constant as it stands in a file; [`pb::TensorProto`] has the ways to store its elements.
pub type TensorMsg = Lossless<pb::TensorProto>;
/// A named constant of a node.
pub type AttributeMsg = Lossless<pb::AttributeProto>;
/// Name and type of a value.
pub type ValueInfoMsg = Lossless<pb::ValueInfoProto>;
/// A function of the model.
pub type FunctionMsg = Lossless<pb::FunctionProto>;
/// The type of a value.
pub type TypeMsg = Lossless<pb::TypeProto>;
