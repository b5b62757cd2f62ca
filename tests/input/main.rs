//! Images and arrays as the model is fed with them, against Pillow and NumPy.

mod dataset;
mod malformed;
mod preprocess;
mod python;
