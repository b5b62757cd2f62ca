"""Writes the model whose initializers `tensors_made_here_are_what_onnx_reads` makes itself."""

import pathlib
import sys

import ml_dtypes
import numpy as np
from onnx import TensorProto, helper, numpy_helper

arrays = [
    np.array([[1.5, -0.0], [np.inf, 1e-40]], np.float32),
    np.array(-(2**63), np.int64),
    np.array([1, -2, 2**31 - 1], np.int32),
    np.array([[-128, 0, 127]], np.int8),
    np.array([0, 255], np.uint8),
    np.array([True, False, True]),
    np.array([-8, 7, 0, -1, 3], ml_dtypes.int4),
    np.array([15, 0, 9], ml_dtypes.uint4),
    np.array([-2, 1, 0, -1, 1], ml_dtypes.int2),
    np.array([3, 2, 1, 0, 3, 3, 1], ml_dtypes.uint2),
    np.zeros((0, 4), np.float32),
]
tensors = [numpy_helper.from_array(array, f"t{i}") for i, array in enumerate(arrays)]
output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 2])
graph = helper.make_graph([helper.make_node("Identity", ["t0"], ["y"])], "made", [], [output], tensors)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)])
pathlib.Path(sys.argv[1]).write_bytes(model.SerializeToString())
