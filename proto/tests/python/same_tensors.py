"""Fails unless the models hold the same initializers, bit for bit, and the second passes the ONNX checker."""

import sys

import numpy as np
import onnx
from onnx import numpy_helper

one, two = (onnx.load(path) for path in sys.argv[1:3])
onnx.checker.check_model(sys.argv[2])
assert len(one.graph.initializer) == len(two.graph.initializer) > 0
for a, b in zip(one.graph.initializer, two.graph.initializer):
    assert (a.name, a.data_type, list(a.dims)) == (b.name, b.data_type, list(b.dims)), (a.name, b.name)
    x, y = numpy_helper.to_array(a), numpy_helper.to_array(b)
    assert x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes(), a.name
