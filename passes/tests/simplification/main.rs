//! The graph's text, inference and simplification, judged by ONNX's own parser, checker and schemas and by
//! ONNX Runtime (`judge.py`). Needs Python with numpy, onnx and onnxruntime: `VITQ_PYTHON`, or `.venv` at the
//! workspace's root.

mod batch_norm;
mod check;
mod contrib;
mod exports;
mod fused;
mod infer;
mod rules;
mod support;
mod text;
mod upgrade;
mod widen;
