"""Fails unless two files hold the same model, unknown fields included, as Python's protobuf reads them."""

import pathlib
import sys

import onnx

one, two = (onnx.ModelProto.FromString(pathlib.Path(path).read_bytes()) for path in sys.argv[1:3])
assert one.SerializeToString(deterministic=True) == two.SerializeToString(deterministic=True)
print(one.ByteSize())
