//! Plans written into graphs: text in, text out for every form, and every form judged by NumPy, the ONNX checker and
//! ONNX Runtime (`judge.py`, `families.py`). Needs Python with numpy, onnx and onnxruntime: `VITQ_PYTHON`, or `.venv` at the workspace's root.

mod attention;
mod families;
mod folds;
mod forms;
mod linear;
mod networks;
mod refusals;
mod support;
mod targets;
mod units;
