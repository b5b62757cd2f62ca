//! What is fed to a model: folders of images, arrays, and the preprocessing between.

mod array;

pub use array::Array;
