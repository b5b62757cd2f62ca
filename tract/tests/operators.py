"""Makes quantisation graphs, runs them in ONNX Runtime, and writes what it gave.

    python operators.py OUT             the cases of operators.rs
    python operators.py OUT MODEL...    one case a model: random images
    python operators.py OUT --linears MODEL...   one case for each Linear of a QDQ model, or of what ONNX Runtime's
                                                 quantiser makes of a float one: its input in a run of the model

OUT/cases.json lists the cases; models and arrays (raw, little-endian) lie beside it. ONNX Runtime runs
without graph optimisation, so that each operator means what it says and nothing is fused.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.utils
import onnxruntime as ort
from onnx import TensorProto as T
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

OUT = Path(sys.argv[1])
RNG = np.random.default_rng(7)
CASES = []



def most_weight():
    """Products of larger weights saturate in ONNX Runtime on x86-64 without VNNI, where two of them are added in 16 bits."""
    node = helper.make_node("MatMulInteger", ["x", "w"], ["y"])
    io = [helper.make_tensor_value_info(n, kind, dims) for n, kind, dims in (("x", T.UINT8, (1, 8)), ("w", T.INT8, (8, 16)), ("y", T.INT32, (1, 16)))]
    graph = helper.make_graph([node], "sums", io[:2], io[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x, w = np.full((1, 8), 255, np.uint8), np.full((8, 16), 127, np.int8)
    (y,) = session.run(None, {"x": x, "w": w})
    return 128 if (y == 8 * 255 * 127).all() else 64


MOST = most_weight()

# ONNX type: (least code, greatest code, opset that has it in Q and DQ, type to read packed codes as)
CODES = {
    T.UINT8: (0, 255, 13, None),
    T.INT8: (-128, 127, 13, None),
    T.UINT16: (0, 65535, 21, None),
    T.INT16: (-32768, 32767, 21, None),
    T.UINT4: (0, 15, 21, T.UINT8),
    T.INT4: (-8, 7, 21, T.INT8),
    T.UINT2: (0, 3, 25, T.UINT8),
    T.INT2: (-2, 1, 25, T.INT8),
}
# Widened as the executors under test widen.
WIDER = {"int8": "int32", "int16": "int32", "uint16": "int32", "float16": "float32", "float64": "float32"}


def name_of(kind):
    return T.DataType.Name(kind).lower()


def tensor(name, kind, dims, values, raw=True):
    values = np.asarray(values)
    if kind in CODES and CODES[kind][3] is not None:
        bits = 4 if kind in (T.UINT4, T.INT4) else 2
        flat = values.reshape(-1).astype(np.int64) & (2**bits - 1)
        flat = np.concatenate([flat, np.zeros(-len(flat) % (8 // bits), np.int64)]).reshape(-1, 8 // bits)
        packed = (flat << (bits * np.arange(8 // bits))).sum(axis=1).astype(np.uint8)
        proto = onnx.TensorProto(name=name, data_type=kind, dims=dims)
        if raw:
            proto.raw_data = packed.tobytes()
        else:
            proto.int32_data.extend(packed.tolist())
        return proto
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    return numpy_helper.from_array(values.astype(dtype).reshape(dims), name)


def model(nodes, inputs, outputs, constants, opset=21):
    graph = helper.make_graph(
        nodes,
        "case",
        [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for n, a in inputs.items()],
        [helper.make_tensor_value_info(n, kind, None) for n, kind in outputs.items()],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10 if opset < 25 else 12)


def dump(array, stem):
    array = np.asarray(array)
    array = array.astype(WIDER.get(array.dtype.name, array.dtype.name))
    (OUT / stem).write_bytes(np.ascontiguousarray(array).tobytes())
    return {"file": stem, "dtype": array.dtype.name, "dims": list(array.shape)}


def case(name, proto, inputs, tolerance=0.0, codes_off=0.0, specified=None, integer=None, quantisers=None, staircases=None):
    """`tolerance`: greatest difference of floats; 0 is bit for bit. `codes_off`: share of integers that
    may be one off, for chains with float operators whose last bit differs between runtimes. `specified`:
    what the ONNX specification gives, where ONNX Runtime gives something else. `integer`: how many of its
    Linears can run in integers; no element of an output is then off by more than 100 dB below its root mean
    square. `quantisers`: how many QuantizeLinears a model has whose other quantisers, in arithmetic, are joined.
    `staircases`: how many sums of quantisers become one."""
    data = proto.SerializeToString()
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    expected = session.run(None, inputs)
    if specified is not None:
        assert not np.array_equal(specified, expected[0]), f"{name}: ONNX Runtime follows the specification now"
        expected = [specified]
    stem = f"{len(CASES):03}"
    (OUT / f"{stem}.onnx").write_bytes(data)
    CASES.append({
        "name": name,
        "model": f"{stem}.onnx",
        "tolerance": tolerance,
        "codes_off": codes_off,
        "specified": specified is not None,
        "integer": integer,
        "quantisers": quantisers,
        "staircases": staircases,
        "inputs": [{"name": n, **dump(a, f"{stem}.in{i}")} for i, (n, a) in enumerate(inputs.items())],
        "outputs": [
            {"name": o.name, **dump(a, f"{stem}.out{i}")}
            for i, (o, a) in enumerate(zip(session.get_outputs(), expected))
        ],
    })


DIMS = (3, 4, 10)
# name: (dims of scale and zero point, attributes)
LAYOUTS = {
    "scalar": ((), {}),
    "tensor": ((1,), {}),
    "axis0": ((3,), {"axis": 0}),
    "axis1": ((4,), {}),
    "axis-1": ((10,), {"axis": -1}),
    "block5": ((3, 4, 2), {"axis": 2, "block_size": 5}),
    "block2_axis1": ((3, 2, 10), {"axis": 1, "block_size": 2}),
    "block4_ragged": ((3, 4, 3), {"axis": -1, "block_size": 4}),
}


def spread(parameter, layout):
    """Scales or zero points as an array of DIMS."""
    dims, attributes = LAYOUTS[layout]
    if len(dims) == 3:
        axis = attributes["axis"] % 3
        repeated = np.repeat(parameter, attributes["block_size"], axis=axis)
        return np.take(repeated, range(DIMS[axis]), axis=axis)
    if dims in ((), (1,)):
        return np.broadcast_to(parameter.reshape(()), DIMS)
    axis = attributes.get("axis", 1) % 3
    return np.broadcast_to(parameter.reshape([-1 if a == axis else 1 for a in range(3)]), DIMS)


def parameters(kind, layout, dtype=np.float32):
    low, high, _, _ = CODES[kind]
    dims, _ = LAYOUTS[layout]
    scale = RNG.uniform(0.003, 0.2, dims).astype(dtype)
    return scale, RNG.integers(low, high + 1, dims)


def opset_of(kind, layout, least=13):
    return max(CODES[kind][2], 21 if layout.startswith("block") else least)


def around_ties(kind, scale, zero):
    """Quotients at half steps, and one float to either side, over and past the range of the codes."""
    low, high, _, _ = CODES[kind]
    span = min(high - low, 300)
    steps = RNG.integers(-8, span + 8, DIMS) + (RNG.integers(low, max(low, high - span) + 1, DIMS) - zero) + 0.5
    x = (steps * scale.astype(np.float64)).astype(np.float32)
    towards = np.where(RNG.integers(0, 2, DIMS) == 1, np.float32(np.inf), np.float32(-np.inf))
    return np.where(RNG.integers(0, 3, DIMS) == 0, x, np.nextafter(x, towards)).astype(np.float32)


def quantise_case(name, kind, x, scale, zero, attributes, opset, scale_kind=T.FLOAT, tail=(), raw=True, specified=None):
    wide = CODES[kind][3]
    constants, names = [tensor("s", scale_kind, scale.shape, scale)], ["x", "s"]
    if scale_kind == T.FLOAT16:
        names[0] = "h"
    if zero is not None:
        constants.append(tensor("z", kind, zero.shape, zero, raw))
        names.append("z")
    nodes = [helper.make_node("QuantizeLinear", names + list(tail), ["q"], "quantise", **attributes)]
    if scale_kind == T.FLOAT16:
        nodes.insert(0, helper.make_node("Cast", ["x"], ["h"], to=T.FLOAT16))
    if wide:
        nodes.append(helper.make_node("Cast", ["q"], ["y"], to=wide))
    proto = model(nodes, {"x": x}, {"y" if wide else "q": wide or kind}, constants, opset)
    case(name, proto, {"x": x}, specified=specified)


def saturated(kind, x, scale, zero):
    """The specification's formula; ONNX Runtime wraps quotients beyond 2³¹ in some of its loops."""
    low, high, _, wide = CODES[kind]
    codes = np.clip(np.rint(x.astype(np.float64) / scale) + zero, low, high)
    return codes.astype(helper.tensor_dtype_to_np_dtype(wide))


def quantise_cases():
    for kind in CODES:
        for layout, (_, attributes) in LAYOUTS.items():
            scale, zero = parameters(kind, layout)
            x = around_ties(kind, spread(scale, layout), spread(zero, layout))
            quantise_case(f"Q {name_of(kind)} {layout}, ties", kind, x, scale, zero, attributes, opset_of(kind, layout))
        scale, zero = parameters(kind, "scalar")
        x = RNG.normal(0, 30, DIMS).astype(np.float32)
        edges = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-42, 3e38, -3e38, 2.0**31, -(2.0**31), 2.0**33, -(2.0**33), 1e9]
        x.reshape(-1)[: len(edges)] = edges
        if CODES[kind][3] in (T.UINT8, T.INT8):
            x[np.isnan(x)] = 1  # what a packed code of NaN is, ONNX Runtime tells differently from loop to loop
        wraps = kind in (T.UINT2, T.INT2)
        quantise_case(f"Q {name_of(kind)} edges", kind, x, scale, zero, {}, opset_of(kind, "scalar"),
                      specified=saturated(kind, x, scale, zero) if wraps else None)
        for axis, dims in ((1, (4,)), (-1, (10,))):
            zero = RNG.integers(CODES[kind][0], CODES[kind][1] + 1, dims)
            scale = RNG.uniform(0.003, 0.2, dims).astype(np.float32)
            shape = [-1 if a == axis % 3 else 1 for a in range(3)]
            wraps = CODES[kind][3] and (kind in (T.UINT2, T.INT2) or axis == -1)
            specified = saturated(kind, x, scale.reshape(shape), zero.reshape(shape)) if wraps else None
            quantise_case(f"Q {name_of(kind)} edges, axis {axis}", kind, x, scale, zero, {"axis": axis},
                          opset_of(kind, "axis1"), specified=specified)
        if kind not in (T.UINT2, T.INT2):
            scale = np.array(0.07, np.float32)
            x = around_ties(kind, np.broadcast_to(scale, DIMS), np.zeros(DIMS, np.int64))
            quantise_case(f"Q {name_of(kind)} by output_dtype", kind, x, scale, None, {"output_dtype": kind}, 21)
    x = around_ties(T.UINT8, np.float32(0.05), np.int64(0))
    quantise_case("Q without zero point", T.UINT8, x, np.array(0.05, np.float32), None, {}, 13)
    quantise_case("Q with an empty zero point", T.UINT8, x, np.array(0.05, np.float32), None, {}, 13, tail=[""])
    quantise_case("Q per axis without zero point", T.UINT8, x, RNG.uniform(0.01, 0.1, 4).astype(np.float32), None, {}, 13)
    scale, zero = parameters(T.INT4, "axis1")
    quantise_case("Q zero point in int32_data", T.INT4, x, scale, zero, {}, 21, raw=False)
    for kind in (T.UINT8, T.INT8):
        scale, zero = parameters(kind, "axis1", np.float16)
        half = RNG.normal(0, 2, DIMS).astype(np.float32)
        quantise_case(f"Q {name_of(kind)} float16", kind, half, scale, zero, {}, 21, T.FLOAT16)
    for scale in (1e-30, 1e30, 1.4e-45):
        quantise_case(f"Q scale {scale}", T.UINT8, x, np.array(scale, np.float32), np.array(9), {}, 13)
    nodes = [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"])]
    inputs = {"x": x, "s": np.array(0.031, np.float32), "z": np.array(77, np.uint8)}
    case("Q scale and zero point computed", model(nodes, inputs, {"q": T.UINT8}, []), inputs)


def dequantise_case(name, kind, codes, scale, zero, attributes, opset, scale_kind=T.FLOAT, out=T.FLOAT, tail=(), raw=True):
    """Codes of 8 bits and more are fed; packed ones are a constant, beside an input that adds nothing."""
    constants, names = [tensor("s", scale_kind, scale.shape, scale)], ["q", "s"]
    if zero is not None:
        constants.append(tensor("z", kind, zero.shape, zero, raw))
        names.append("z")
    node = helper.make_node("DequantizeLinear", names + list(tail), ["d"], "dequantise", **attributes)
    # No int8, int16 or uint16 input exists in the executors under test, so codes are always constants.
    constants.append(tensor("q", kind, codes.shape, codes, raw))
    x = np.zeros(1, np.float32)
    nodes = [helper.make_node("Cast", ["x"], ["zero"], to=out), node, helper.make_node("Add", ["d", "zero"], ["y"])]
    case(name, model(nodes, {"x": x}, {"y": out, "d": out}, constants, opset), {"x": x})


def dequantise_cases():
    for kind, (low, high, _, _) in CODES.items():
        for layout, (_, attributes) in LAYOUTS.items():
            scale, zero = parameters(kind, layout)
            codes = RNG.integers(low, high + 1, DIMS)
            dequantise_case(f"DQ {name_of(kind)} {layout}", kind, codes, scale, zero, attributes, opset_of(kind, layout))
    for layout in ("scalar", "axis0", "axis1", "axis-1"):
        scale = RNG.uniform(1e-6, 1e-3, LAYOUTS[layout][0]).astype(np.float32)
        codes = RNG.integers(-(2**31), 2**31, DIMS)
        dequantise_case(f"DQ int32 {layout}", T.INT32, codes, scale, None, LAYOUTS[layout][1], 13)
    codes = RNG.integers(0, 256, DIMS)
    scale = np.array(0.013, np.float32)
    dequantise_case("DQ with an empty zero point", T.UINT8, codes, scale, None, {}, 13, tail=[""])
    scale, zero = parameters(T.INT4, "axis1")
    dequantise_case("DQ int4 in int32_data", T.INT4, RNG.integers(-8, 8, DIMS), scale, zero, {}, 21, raw=False)
    scale, zero = parameters(T.UINT4, "scalar")
    dequantise_case("DQ uint4, odd count", T.UINT4, RNG.integers(0, 16, (3, 5)), scale, zero, {}, 21)
    for kind in (T.UINT8, T.INT8, T.INT4):
        scale, zero = parameters(kind, "axis1", np.float16)
        codes = RNG.integers(CODES[kind][0], CODES[kind][1] + 1, DIMS)
        dequantise_case(f"DQ {name_of(kind)} float16", kind, codes, scale, zero, {}, 21, T.FLOAT16, T.FLOAT16)
    q = RNG.integers(0, 256, DIMS).astype(np.uint8)
    inputs = {"q": q, "s": RNG.uniform(0.01, 0.1, 4).astype(np.float32), "z": RNG.integers(0, 256, 4).astype(np.uint8)}
    nodes = [helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"])]
    case("DQ fed, scale and zero point computed", model(nodes, inputs, {"d": T.FLOAT}, []), inputs)
    # More than the 4 MB up to which tract folds constants.
    codes = RNG.integers(-128, 128, (1024, 1100))
    scale = RNG.uniform(0.01, 0.1, 1100).astype(np.float32)
    dequantise_case("DQ int8 of 4.5 MB", T.INT8, codes, scale, None, {"axis": 1}, 13)
    # A node may hold its packed tensor itself.
    constant = helper.make_node("Constant", [], ["q"], value=tensor("c", T.UINT4, (4, 3), RNG.integers(0, 16, 12)))
    nodes = [constant, helper.make_node("DequantizeLinear", ["q", "s"], ["d"]), helper.make_node("Add", ["d", "x"], ["y"])]
    x = np.ones(3, np.float32)
    case("DQ of a Constant node", model(nodes, {"x": x}, {"y": T.FLOAT}, [tensor("s", T.FLOAT, (), 0.25)]), {"x": x})


def between_cases():
    """DQ → something → Q, of which tract would make a lookup table."""
    q = RNG.integers(0, 256, (2, 6, 16)).astype(np.uint8)
    operators = {
        "Softmax": ({"axis": -1}, 13, 1 / 255, 0),
        "Softmax over axis 1": ({"axis": 1}, 13, 1 / 255, 0),
        "LogSoftmax": ({"axis": -1}, 13, 0.11, 200),
        "Exp": ({}, 13, 0.9, 3),
        "Relu": ({}, 14, 0.02, 40),
        "Tanh": ({}, 13, 0.0083, 120),
        "Sigmoid": ({}, 13, 0.004, 0),
        "Gelu": ({}, 20, 0.03, 20),
        "Erf": ({}, 13, 0.008, 128),
    }
    for name, (attributes, opset, scale, zero) in operators.items():
        for kind in (T.UINT8, T.INT8):
            shift = 0 if kind == T.UINT8 else -128
            constants = [
                tensor("s1", T.FLOAT, (), 0.041), tensor("z1", T.UINT8, (), 131),
                tensor("s2", T.FLOAT, (), scale), tensor("z2", kind, (), zero + shift),
            ]
            nodes = [
                helper.make_node("DequantizeLinear", ["q", "s1", "z1"], ["d"]),
                helper.make_node(name.split()[0], ["d"], ["f"], **attributes),
                helper.make_node("QuantizeLinear", ["f", "s2", "z2"], ["r"]),
            ]
            # A code may turn where another last bit of the function crosses a tie.
            case(f"DQ uint8 → {name} → Q {name_of(kind)}",
                 model(nodes, {"q": q}, {"r": kind}, constants, max(opset, 13)), {"q": q}, codes_off=0.01)
    # Nothing between: a chain of Q and DQ, and a DQ with two readers, one of them no Q.
    x = around_ties(T.UINT8, np.float32(0.05), np.int64(128))
    constants = [tensor("s1", T.FLOAT, (), 0.05), tensor("z1", T.UINT8, (), 128),
                 tensor("s2", T.FLOAT, (), 0.1), tensor("z2", T.INT8, (), 3)]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s1", "z1"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s1", "z1"], ["d"]),
        helper.make_node("QuantizeLinear", ["d", "s2", "z2"], ["r"]),
        helper.make_node("DequantizeLinear", ["r", "s2", "z2"], ["e"]),
    ]
    outputs = {"e": T.FLOAT, "d": T.FLOAT, "r": T.INT8}
    case("Q → DQ → Q → DQ, types differ, DQ shared", model(nodes, {"x": x}, outputs, constants), {"x": x})
    nodes = nodes[:2] + [helper.make_node("Reshape", ["d", "dims"], ["f"]), helper.make_node("Transpose", ["f"], ["g"], perm=[1, 0]),
                         helper.make_node("QuantizeLinear", ["g", "s1", "z1"], ["r"])]
    constants.append(tensor("dims", T.INT64, (2,), [12, 10]))
    case("Q → DQ → Reshape → Transpose → Q", model(nodes, {"x": x}, {"r": T.UINT8}, constants), {"x": x})


def log_sqrt2_cases():
    scores = RNG.normal(0, 3, (2, 3, 17, 17)).astype(np.float32)
    values = RNG.normal(0, 1, (2, 3, 17, 8)).astype(np.float32)
    for bits in (3, 4):
        n = 2**bits
        constants = [tensor("s", T.FLOAT, (), np.log(2) / 2), tensor("z", T.UINT8, (), n)]
        nodes = [
            helper.make_node("LogSoftmax", ["x"], ["l"], axis=-1),
            helper.make_node("QuantizeLinear", ["l", "s", "z"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
            helper.make_node("Exp", ["d"], ["e"]),
            helper.make_node("ThresholdedRelu", ["e"], ["p"], alpha=2 ** (-(n - 0.5) / 2)),
            helper.make_node("MatMul", ["p", "v"], ["y"]),
        ]
        proto = model(nodes, {"x": scores, "v": values}, {"y": T.FLOAT, "p": T.FLOAT}, constants)
        case(f"log√2, {bits} bits", proto, {"x": scores, "v": values}, tolerance=2e-6)


def linear_constants(k, n):
    """Weights int8 [k, n], one scale a column; activation scale and zero point; int32 bias."""
    weight = RNG.integers(1 - MOST, MOST, (k, n))
    ws = RNG.uniform(0.001, 0.01, n).astype(np.float32)
    xs = np.float32(0.021)
    bias = RNG.integers(-5000, 5000, n)
    return weight, ws, xs, [
        tensor("xs", T.FLOAT, (), xs), tensor("xz", T.UINT8, (), 117),
        tensor("ws", T.FLOAT, (n,), ws), tensor("wz", T.INT8, (n,), np.zeros(n)),
        tensor("b", T.INT32, (n,), bias), tensor("bs", T.FLOAT, (n,), xs * ws), tensor("bz", T.INT32, (n,), np.zeros(n)),
    ]


def linear_cases():
    x = RNG.normal(0, 1, (1, 7, 48)).astype(np.float32)
    weight, ws, xs, constants = linear_constants(48, 32)
    q = helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["q"])
    dq = helper.make_node("DequantizeLinear", ["q", "xs", "xz"], ["d"])
    wdq = helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=1)
    bdq = helper.make_node("DequantizeLinear", ["b", "bs", "bz"], ["bd"], axis=0)
    product = [helper.make_node("MatMul", ["d", "wd"], ["m"]), helper.make_node("Add", ["m", "bd"], ["y"])]
    w = tensor("w", T.INT8, (48, 32), weight)
    out = {"y": T.FLOAT}
    case("Linear, QDQ with int32 bias", model([q, dq, wdq, bdq, *product], {"x": x}, out, [*constants, w]), {"x": x}, 1e-5)

    codes = tensor("codes", T.UINT4, (48, 32), RNG.integers(0, 16, (48, 32)))
    table = tensor("table", T.INT8, (16,), np.sort(RNG.choice(np.arange(1 - MOST, MOST), 16, replace=False)))
    lookup = [helper.make_node("Cast", ["codes"], ["index"], to=T.INT32), helper.make_node("Gather", ["table", "index"], ["w"])]
    proto = model([*lookup, q, dq, wdq, bdq, *product], {"x": x}, {"y": T.FLOAT, "w": T.INT8, "wd": T.FLOAT}, [*constants, codes, table])
    case("Linear, codebook of uint4 weights", proto, {"x": x}, 1e-5)

    levels = np.sort(RNG.choice(256, 16, replace=False))
    nearest = levels[np.abs(np.arange(256)[:, None] - levels).argmin(axis=1)]
    table = tensor("levels", T.UINT8, (256,), nearest)
    lookup = [helper.make_node("Cast", ["q"], ["index"], to=T.INT32), helper.make_node("Gather", ["levels", "index"], ["c"])]
    cdq = helper.make_node("DequantizeLinear", ["c", "xs", "xz"], ["d"])
    proto = model([q, *lookup, cdq, wdq, bdq, *product], {"x": x}, {"y": T.FLOAT, "c": T.UINT8}, [*constants, w, table])
    case("Linear, codebook of activations", proto, {"x": x}, 1e-5)

    limit = helper.make_node("Min", ["q", "fifteen"], ["c"])
    four = [tensor("s4", T.FLOAT, (), 0.4), tensor("z4", T.UINT8, (), 7), tensor("fifteen", T.UINT8, (), 15)]
    nodes = [helper.make_node("QuantizeLinear", ["x", "s4", "z4"], ["q"]), limit,
             helper.make_node("DequantizeLinear", ["c", "s4", "z4"], ["d"]), wdq, bdq, *product]
    case("Linear, 4-bit activation in 8 bits", model(nodes, {"x": x}, {"y": T.FLOAT, "c": T.UINT8}, [*constants, w, *four]), {"x": x}, 1e-5)

    for zero, dims in (("xz", ()), ("xz1", (1,))):
        nodes = [q, helper.make_node("MatMulInteger", ["q", "w", zero], ["i"]), helper.make_node("Cast", ["i"], ["f"], to=T.FLOAT),
                 helper.make_node("Mul", ["f", "bs"], ["m"]), helper.make_node("Add", ["m", "bd"], ["y"]), bdq]
        nodes = [nodes[-1], *nodes[:-1]]
        extra = [] if zero == "xz" else [tensor("xz1", T.UINT8, dims, [117])]
        proto = model(nodes, {"x": x}, {"y": T.FLOAT, "i": T.INT32}, [*constants, w, *extra])
        case(f"Linear, MatMulInteger, zero point of dims {dims}", proto, {"x": x}, 1e-5)

    for kind in (T.INT4, T.UINT4, T.INT8):
        low, high, _, _ = CODES[kind]
        wq = tensor("w", kind, (48, 32), RNG.integers(low, high + 1, (48, 32)))
        s, z = RNG.uniform(0.01, 0.1, (3, 32)).astype(np.float32), RNG.integers(low, high + 1, (3, 32))
        nodes = [helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wd"], axis=0, block_size=16), helper.make_node("MatMul", ["x", "wd"], ["y"])]
        proto = model(nodes, {"x": x}, out, [wq, tensor("s", T.FLOAT, (3, 32), s), tensor("z", kind, (3, 32), z)])
        case(f"Linear, weight only, {name_of(kind)} in blocks", proto, {"x": x}, 2e-4)


def float_cases():
    x = RNG.normal(0, 2, (2, 9, 24)).astype(np.float32)
    affine = [tensor("g", T.FLOAT, (24,), RNG.normal(1, 0.2, 24)), tensor("b", T.FLOAT, (24,), RNG.normal(0, 0.2, 24))]
    node = helper.make_node("LayerNormalization", ["x", "g", "b"], ["y"], axis=-1, epsilon=1e-6)
    case("LayerNormalization", model([node], {"x": x}, {"y": T.FLOAT}, affine), {"x": x}, 2e-5)
    for approximate in ("none", "tanh"):
        node = helper.make_node("Gelu", ["x"], ["y"], approximate=approximate)
        case(f"Gelu, {approximate}", model([node], {"x": x}, {"y": T.FLOAT}, []), {"x": x}, 2e-5)
    nodes = [
        helper.make_node("Div", ["x", "root"], ["a"]), helper.make_node("Erf", ["a"], ["e"]),
        helper.make_node("Add", ["e", "one"], ["p"]), helper.make_node("Mul", ["x", "p"], ["m"]),
        helper.make_node("Mul", ["m", "half"], ["y"]),
    ]
    constants = [tensor("root", T.FLOAT, (), 2**0.5), tensor("one", T.FLOAT, (), 1), tensor("half", T.FLOAT, (), 0.5)]
    case("Gelu from Erf", model(nodes, {"x": x}, {"y": T.FLOAT}, constants), {"x": x}, 2e-5)
    node = helper.make_node("Softmax", ["x"], ["y"], axis=-1)
    case("Softmax", model([node], {"x": x}, {"y": T.FLOAT}, []), {"x": x}, 2e-6)


def whole_model(path):
    proto = onnx.load(path)
    case(path, proto, random_input(proto), tolerance=1e-4)


def integer_case(name, x, weight, integer, *, axis=1, kind=T.UINT8, zero=117, wz=0, scales=None, bias=T.INT32, gemm=None, product=None):
    """x · weight + bias, weight with a scale for each index along `axis` or with `scales`."""
    ws = RNG.uniform(0.001, 0.01, weight.shape[axis]).astype(np.float32) if scales is None else scales
    channels = weight.shape[0] if gemm and gemm.get("transB") else weight.shape[-1]
    b = RNG.integers(-5000, 5000, channels)
    constants = [
        tensor("xs", T.FLOAT, (), 0.021), tensor("xz", kind, (), zero), tensor("w", T.INT8, weight.shape, weight),
        tensor("ws", T.FLOAT, ws.shape, ws), tensor("wz", T.INT8, ws.shape, np.full(ws.shape, wz)),
        tensor("b", T.INT32, b.shape, b), tensor("bs", T.FLOAT, (), 1e-4), tensor("bf", T.FLOAT, b.shape, b * 1e-4),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "xs", "xz"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=axis),
        helper.make_node("DequantizeLinear", ["b", "bs"], ["bd"]),
    ]
    added = "bd" if bias == T.INT32 else "bf"
    if product:
        nodes += product
    elif gemm is not None:
        nodes.append(helper.make_node("Gemm", ["d", "wd", added] if bias else ["d", "wd"], ["y"], **gemm))
    elif bias:
        nodes += [helper.make_node("MatMul", ["d", "wd"], ["m"]), helper.make_node("Add", [added, "m"], ["y"])]
    else:
        nodes.append(helper.make_node("MatMul", ["d", "wd"], ["y"]))
    outputs = {o: T.FLOAT for n in nodes[4:] for o in n.output if o[0] == "y"}
    case(f"integer Linear, {name}", model(nodes, {"x": x}, outputs, constants), {"x": x}, integer=integer)


def matmul_integer_case(name, x, weight, integer, *, kind=T.UINT8, zero=117, wz=None, scales=None, bias=True, read=None):
    """Cast(MatMulInteger(q, weight)) · scales + bias."""
    n = weight.shape[-1]
    scales = RNG.uniform(1e-5, 1e-4, n).astype(np.float32) if scales is None else scales
    constants = [
        tensor("xs", T.FLOAT, (), 0.021), tensor("xz", kind, (), zero), tensor("w", T.INT8, weight.shape, weight),
        tensor("s", T.FLOAT, scales.shape, scales), tensor("b", T.FLOAT, (n,), RNG.normal(0, 0.1, n)),
        tensor("wz", T.INT8, (), wz or 0),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["q"]),
        helper.make_node("MatMulInteger", ["q", "w", "xz"] + ["wz"] * (wz is not None), ["i"]),
        helper.make_node("Cast", ["i"], ["f"], to=T.FLOAT),
        helper.make_node("Mul", ["f", "s"], ["m" if bias else "y"]),
    ]
    if bias:
        nodes.append(helper.make_node("Add", ["b", "m"], ["y"]))
    outputs = {o: T.FLOAT for o in ["y", read] if o}
    case(f"integer Linear, {name}", model(nodes, {"x": x}, outputs, constants), {"x": x}, integer=integer)


def staircase_case(name, ramps, staircases, *, shared=True, scales=None, read="x"):
    """A sum of clipped quantisers, as vitq writes a codebook: each (step, zero point, from, to), counted `step` times."""
    x, weight = RNG.normal(0, 2, (3, 9, 40)).astype(np.float32), RNG.integers(-MOST, MOST, (40, 24))
    constants = [tensor("w", T.INT8, weight.shape, weight), tensor("z", T.UINT8, (), 3), tensor("s", T.FLOAT, (), 1e-4)]
    nodes, quantised, parts = [helper.make_node("Neg", ["x"], ["n"])], {}, []
    for i, (step, zero, first, last) in enumerate(ramps):
        codes = quantised.get((step, zero)) if shared else None
        if codes is None:
            codes = quantised[step, zero] = f"q{i}"
            scale = np.float32(0.05) * step * (1 if scales is None else scales)
            constants += [tensor(f"s{i}", T.FLOAT, np.shape(scale), scale), tensor(f"z{i}", T.UINT8, np.shape(scale), np.full(np.shape(scale), zero))]
            nodes.append(helper.make_node("QuantizeLinear", [read if i else "x", f"s{i}", f"z{i}"], [codes]))
        constants += [tensor(f"from{i}", T.UINT8, (), first), tensor(f"to{i}", T.UINT8, (), last)]
        nodes.append(helper.make_node("Clip", [codes, f"from{i}", f"to{i}"], [f"c{i}"]))
        part = f"c{i}"
        for time in range(1, step):
            nodes.append(helper.make_node("Add", [part, f"c{i}"], [f"c{i}x{time}"]))
            part = f"c{i}x{time}"
        parts.append(part)
    for i, part in enumerate(parts[1:]):
        nodes.append(helper.make_node("Add", [parts[0], part], [f"sum{i}"]))
        parts[0] = f"sum{i}"
    nodes += [
        helper.make_node("MatMulInteger", [parts[0], "w", "z"], ["i"]),
        helper.make_node("Cast", ["i"], ["f"], to=T.FLOAT),
        helper.make_node("Mul", ["f", "s"], ["y"]),
    ]
    proto = model(nodes, {"x": x}, {"y": T.FLOAT}, constants)
    case(f"staircase, {name}", proto, {"x": x}, integer=1, staircases=staircases)


def staircase_cases():
    staircase_case("one ramp", [(1, 8, 0, 15)], 1)
    staircase_case("two ramps", [(1, 8, 0, 15), (6, 2, 2, 7)], 1)
    staircase_case("three ramps, two of one quantiser", [(5, 6, 0, 4), (1, 9, 2, 9), (5, 6, 6, 20)], 1)
    staircase_case("an interval above zero", [(3, 0, 4, 20)], 1)
    staircase_case("declined: more than uint8 holds", [(7, 2, 0, 40)], 0)
    staircase_case("declined: two values", [(1, 8, 0, 15), (6, 2, 2, 7)], 0, read="n")
    staircase_case("declined: scales per channel", [(1, 8, 0, 15)], 0, scales=np.array([1.0] * 8 + [2.0], np.float32))


def arithmetic_case(name, zero, top, quantisers, *, kind=T.UINT8, least=None, scale=0.021, shift=12582912.0):
    """A quantiser of float operators, as vitq writes it for tract as it comes, in front of MatMulInteger."""
    x, weight = RNG.normal(0, 2, (3, 9, 40)).astype(np.float32), RNG.integers(-MOST, MOST, (40, 24))
    least = -zero if least is None else least
    numbers = {"xs": scale, "least": least, "most": top - zero, "shift": shift, "back": shift - zero, "s": 1e-4}
    constants = [tensor(n, T.FLOAT, np.shape(v), np.asarray(v)) for n, v in numbers.items()]
    constants += [tensor("w", T.INT8, weight.shape, weight), tensor("z", kind, (), zero)]
    nodes = [
        helper.make_node("Div", ["x", "xs"], ["d"]),
        helper.make_node("Clip", ["d", "least", "most"], ["c"]),
        helper.make_node("Add", ["c", "shift"], ["a"]),
        helper.make_node("Sub", ["a", "back"], ["r"]),
        helper.make_node("Cast", ["r"], ["q"], to=kind),
        helper.make_node("MatMulInteger", ["q", "w", "z"], ["i"]),
        helper.make_node("Cast", ["i"], ["f"], to=T.FLOAT),
        helper.make_node("Mul", ["f", "s"], ["y"]),
    ]
    proto = model(nodes, {"x": x}, {"y": T.FLOAT}, constants)
    case(f"quantiser in arithmetic, {name}", proto, {"x": x}, integer=1, quantisers=quantisers)


def arithmetic_cases():
    arithmetic_case("8 bits", 117, 255, 1)
    arithmetic_case("zero point at an end", 0, 255, 1)
    arithmetic_case("4 bits", 7, 15, 1, scale=0.4)
    arithmetic_case("3 bits", 7, 7, 1, scale=0.4)
    arithmetic_case("declined: int8", -11, 127, 0, kind=T.INT8, least=-117)
    arithmetic_case("declined: another range than the codes'", 117, 255, 0, least=-100)
    arithmetic_case("declined: scales per channel", 117, 255, 0, scale=RNG.uniform(0.01, 0.03, 40))
    arithmetic_case("declined: another sum than the one that rounds", 117, 255, 0, shift=8388608.0)


def integer_cases():
    def x(*dims):
        return RNG.normal(0, 1, dims).astype(np.float32)

    def w(*dims):
        return RNG.integers(-MOST, MOST, dims)

    for dims, n in (((1, 197, 384), 1536), ((8, 17, 33), 50), ((5, 7), 3), ((1, 1, 64), 64), ((2, 3, 4, 16), 31)):
        integer_case(f"{dims} x {n}", x(*dims), w(dims[-1], n), 1)
    a, b = x(3, 9, 40), w(40, 24)
    integer_case("extreme codes", np.sign(a) * 1e3, np.sign(b) * MOST - (b >= 0), 1)
    integer_case("int8 activation", a, b, 1, kind=T.INT8, zero=-3)
    integer_case("one scale", a, b, 1, scales=np.float32(0.004))
    integer_case("float bias", a, b, 1, bias=T.FLOAT)
    integer_case("no bias", a, b, 1, bias=None)
    integer_case("weight with batch axes", a, w(1, 40, 24), 1, axis=2)
    integer_case("Gemm", a[0], b, 1, gemm={})
    integer_case("Gemm, transposed weight", a[0], w(24, 40), 1, axis=0, gemm={"transB": 1})
    integer_case("Gemm, alpha and beta", a[0], b, 1, gemm={"alpha": 0.5, "beta": 2.0})
    integer_case("Transpose before", a, w(24, 40), 1, axis=0, bias=None, product=[
        helper.make_node("Transpose", ["wd"], ["t"], perm=[1, 0]), helper.make_node("MatMul", ["d", "t"], ["y"])])
    integer_case("product read elsewhere", a, b, 1, product=[
        helper.make_node("MatMul", ["d", "wd"], ["y"]), helper.make_node("Add", ["y", "bd"], ["y2"])])
    integer_case("two Linears on an activation, which is read elsewhere", a, b, 2, product=[
        helper.make_node("MatMul", ["d", "wd"], ["y"]), helper.make_node("MatMul", ["d", "wd"], ["m"]),
        helper.make_node("Add", ["m", "bd"], ["y2"]), helper.make_node("Identity", ["d"], ["y3"])])
    integer_case("residual instead of a bias", x(3, 9, 24), w(24, 24), 1, product=[
        helper.make_node("MatMul", ["d", "wd"], ["m"]), helper.make_node("Add", ["m", "x"], ["y"])])
    for name, kind, zero in (("uint8", T.UINT8, 117), ("int8", T.INT8, -3)):
        matmul_integer_case(f"MatMulInteger, {name}", a, b, 1, kind=kind, zero=zero)
    matmul_integer_case("MatMulInteger, odd sizes", x(2, 5, 37), w(37, 70), 1)
    matmul_integer_case("MatMulInteger, no bias, one scale", a, b, 1, bias=False, scales=np.float32(1e-4))
    matmul_integer_case("MatMulInteger, zero point of the weight", a, b, 1, wz=0)
    matmul_integer_case("declined: MatMulInteger, asymmetric weight", a, b, 0, wz=3)
    matmul_integer_case("declined: MatMulInteger, sums read elsewhere", a, b, 0, read="f")
    integer_case("declined: asymmetric weight", a, b, 0, wz=3)
    integer_case("declined: scales along the sum", a, b, 0, axis=0)
    integer_case("declined: several matrices", a, w(3, 40, 24), 0, axis=2)
    integer_case("declined: uint16 activation", a, b, 0, kind=T.UINT16, zero=30000)
    integer_case("declined: weight on the left", x(40, 9), w(24, 40), 0, axis=0, bias=None, product=[
        helper.make_node("MatMul", ["wd", "d"], ["y"])])


class Random(CalibrationDataReader):
    """Four random inputs."""

    def __init__(self, proto):
        self.left = [random_input(proto) for _ in range(4)]

    def get_next(self):
        return self.left.pop() if self.left else None


def random_input(proto):
    (value,) = [i for i in proto.graph.input if i.name not in {t.name for t in proto.graph.initializer}]
    dims = [d.dim_value or 1 for d in value.type.tensor_type.shape.dim]
    return {value.name: RNG.normal(0, 1, dims).astype(np.float32)}


def quantised(path):
    proto = onnx.load(path)
    if not any(n.op_type == "QuantizeLinear" for n in proto.graph.node):
        quantize_static(
            path, OUT / "quantised.onnx", Random(proto), per_channel=True, op_types_to_quantize=["MatMul", "Gemm"],
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True, "WeightSymmetric": True, "OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"]},
        )
        proto = onnx.load(OUT / "quantised.onnx")
    return proto


def linears(path):
    proto = quantised(path)
    makers = {o: n for n in proto.graph.node for o in n.output}
    constants = {t.name for t in proto.graph.initializer}
    found = {}
    for node in proto.graph.node:
        operands = [makers.get(name) for name in node.input[:2]]
        dequantised = all(o is not None and o.op_type == "DequantizeLinear" for o in operands)
        if node.op_type in ("MatMul", "Gemm") and dequantised and operands[1].input[0] in constants:
            added = [n for n in proto.graph.node if n.op_type == "Add" and node.output[0] in n.input]
            biased = added and any(i in constants or makers[i].input[0] in constants for i in added[0].input)
            y = added[0].output[0] if biased else node.output[0]
            found[y] = makers[operands[0].input[0]].input[0]
    inputs = random_input(proto)
    names = sorted(set(found.values()) | set(found))
    tapped = onnx.ModelProto()
    tapped.CopyFrom(proto)
    del tapped.graph.output[:]
    tapped.graph.output.extend(helper.make_tensor_value_info(n, T.FLOAT, None) for n in names)
    values = dict(zip(names, ort.InferenceSession(tapped.SerializeToString()).run(names, inputs)))
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(helper.make_tensor_value_info(n, T.FLOAT, values[n].shape) for n in names)
    extractor = onnx.utils.Extractor(proto)
    for y, x in found.items():
        case(f"{path}: {y}", extractor.extract_model([x], [y]), {x: values[x]}, integer=1)


OUT.mkdir(parents=True, exist_ok=True)
if sys.argv[2:3] == ["--linears"]:
    for path in sys.argv[3:]:
        linears(path)
else:
    for path in sys.argv[2:]:
        whole_model(path)
if len(sys.argv) == 2:
    quantise_cases()
    dequantise_cases()
    between_cases()
    log_sqrt2_cases()
    linear_cases()
    integer_cases()
    arithmetic_cases()
    staircase_cases()
    float_cases()
(OUT / "cases.json").write_text(json.dumps(CASES))
