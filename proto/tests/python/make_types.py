"""Writes a model with initializers of every element type and, as text, what onnx.numpy_helper reads from them.

    make_types.py MODEL EXPECTED

Lines of EXPECTED: name, FLOAT or INT, values; floats as the hexadecimal bits of a float32.
"""

import pathlib
import sys

import numpy as np
import onnx
from onnx import TensorProto as T, helper, numpy_helper

FLOATS = [0.0, -0.0, 1.0, -1.5, 0.1, 6.0, 448.0, 1e-3, -7.25, 65504.0, 1e-40, np.inf, -np.inf, np.nan, 3.0]
rng = np.random.default_rng(1)
tensors = []


def values(kind: int):
    """Values of a type and a shape that does not fill its last byte."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    name = T.DataType.Name(kind)
    if kind == T.BOOL:
        return np.array([True, False, True])
    if kind == T.FLOAT8E8M0 or "FLOAT8" in name:
        return np.arange(256, dtype=np.uint8).view(dtype)
    if "FLOAT6" in name:
        return np.concatenate([np.arange(64), [5, 9, 33]]).astype(np.uint8).view(dtype)
    if kind == T.FLOAT4E2M1:
        return np.concatenate([np.arange(16), [3]]).astype(np.uint8).view(dtype)
    if name in ("INT4", "UINT4", "INT2", "UINT2"):
        low, high = {"INT4": (-8, 7), "UINT4": (0, 15), "INT2": (-2, 1), "UINT2": (0, 3)}[name]
        return np.concatenate([np.arange(low, high + 1), [high]]).astype(dtype)
    if name in ("FLOAT16", "BFLOAT16"):
        return np.arange(65536, dtype=np.uint16).view(dtype)
    if name in ("FLOAT", "DOUBLE"):
        return np.concatenate([np.array(FLOATS), rng.standard_normal(40)]).astype(dtype)
    info = np.iinfo(dtype)
    middle = rng.integers(info.min, info.max, 20, dtype=dtype, endpoint=True)
    return np.concatenate([np.array([info.min, info.max, 0, 1], dtype=dtype), middle])


def typed(name, kind, array):
    """The field for the type in place of raw_data, which is onnx.helper's own business."""
    if array.dtype.itemsize <= 2 and T.DataType.Name(kind).startswith(("FLOAT", "BFLOAT")):
        # make_tensor rounds from float32: bits are wanted as they are.
        tensor = T(name=name, data_type=kind, dims=array.shape)
        if kind == T.FLOAT4E2M1:
            tensor.int32_data.extend(numpy_helper._pack_4bitx2(array).tolist())
        else:
            bits = array.view(np.uint16 if array.dtype.itemsize == 2 else np.uint8)
            tensor.int32_data.extend(bits.tolist())
        return tensor
    return helper.make_tensor(name, kind, array.shape, array)


with np.errstate(all="ignore"):
    for kind in T.DataType.values():
        if kind in (T.UNDEFINED, T.STRING, T.COMPLEX64, T.COMPLEX128):
            continue
        array, name = values(kind), T.DataType.Name(kind)
        tensors.append(typed(f"{name}_typed", kind, array))
        tensors.append(helper.make_tensor(f"{name}_raw", kind, array.shape, array, raw=True))
        tensors.append(helper.make_tensor(f"{name}_scalar", kind, [], array[1:2].copy(), raw=True))
        tensors.append(helper.make_tensor(f"{name}_empty", kind, [2, 0, 3], array[:0].copy(), raw=True))

    lines = []
    for tensor in tensors:
        array = numpy_helper.to_array(tensor)
        whole = array.dtype.kind in "iub" or T.DataType.Name(tensor.data_type).startswith(("INT", "UINT"))
        if whole:
            words = [str(int(v)) for v in array.ravel()]
        else:
            words = [f"{bits:08x}" for bits in array.ravel().astype(np.float32).view(np.uint32)]
        lines.append(" ".join([tensor.name, "INT" if whole else "FLOAT", *words]))

output = helper.make_tensor_value_info("y", T.FLOAT, [len(FLOATS) + 40])
graph = helper.make_graph([helper.make_node("Identity", ["FLOAT_raw"], ["y"])], "types", [], [output], tensors)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)])
pathlib.Path(sys.argv[1]).write_bytes(model.SerializeToString())
pathlib.Path(sys.argv[2]).write_text("\n".join(lines))
