"""Prints where the onnx package keeps its schema."""

import pathlib

import onnx

print(pathlib.Path(onnx.__file__).parent / "onnx.proto")
