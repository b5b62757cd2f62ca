//! The numeric core against NumPy, ONNX Runtime and plain double-precision references.

mod histograms;
mod judge;
mod levels;
mod products;
mod quantisers;
mod solvers;
