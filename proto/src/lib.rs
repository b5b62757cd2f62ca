//! ONNX files and messages.
