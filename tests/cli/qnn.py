"""Holds a model against what ONNX Runtime's QNN provider takes as node units on HTP and prints what breaks it, as JSON.

qnn.py MODEL: the rules of qdq_selectors.cc and of onnxruntime.quantization's quant_config.py. Operators on floats that form no
unit are listed as `float`, not as broken.
"""

import json
import sys

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper, shape_inference

QUANTISERS = {"QuantizeLinear", "DequantizeLinear"}
MOVES = {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Split", "Gather", "Expand", "MaxPool"}
FIXED = {"Softmax": 1 / 65536, "Sigmoid": 1 / 65536, "Tanh": 1 / 32768}
WEIGHTED = {"MatMul", "Gemm", "Conv"}
ACTIVATIONS = {TensorProto.UINT8, TensorProto.UINT16}


class Model:
    def __init__(self, path):
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
        self.model = model
        graph = shape_inference.infer_shapes(model).graph
        self.nodes = graph.node
        self.constants = {t.name: t for t in graph.initializer}
        self.maker = {name: node for node in graph.node for name in node.output}
        self.readers = {}
        for node in graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.outputs = {value.name for value in graph.output}
        known = [*graph.value_info, *graph.input, *graph.output]
        self.dtype = {value.name: value.type.tensor_type.elem_type for value in known}
        self.dtype |= {t.name: t.data_type for t in graph.initializer}

    def is_float(self, value):
        return self.dtype.get(value) == TensorProto.FLOAT

    def dequantised(self, value):
        """The DequantizeLinear behind a value."""
        node = self.maker.get(value)
        return node if node is not None and node.op_type == "DequantizeLinear" else None

    def codes(self, node):
        """Type of the codes, scale and zero point of a (de)quantiser."""
        scale, zero = (numpy_helper.to_array(self.constants[name]) if name else None for name in [*node.input[1:], ""][:2])
        dtype = self.dtype[node.input[0]] if node.op_type == "DequantizeLinear" else self.constants[node.input[2]].data_type
        return dtype, scale, zero

    def is_constant(self, dequantiser):
        return dequantiser.input[0] in self.constants


def same(a, b):
    return a[0] == b[0] and np.array_equal(a[1], b[1]) and np.array_equal(a[2], b[2])


def parameters(model, node, said):
    """Types of constant weights, scales and biases."""
    sources = [model.dequantised(value) for value in node.input]
    weights = [i for i, it in enumerate(sources) if it is not None and model.is_constant(it)]
    rank = {i: len(model.constants[sources[i].input[0]].dims) for i in weights}
    if node.op_type in WEIGHTED and 1 in weights and rank[1] > 1:
        dtype, scale, zero = model.codes(sources[1])
        said(dtype == TensorProto.INT8 and not zero.any(), "its weight is no symmetric int8")
        out = 0 if node.op_type == "Conv" else 1
        said(scale.shape == (model.constants[sources[1].input[0]].dims[out],), "its weight has no scale per channel")
    if node.op_type == "LayerNormalization":
        said(model.codes(sources[1])[0] == TensorProto.UINT8, "its gamma is no uint8")
    if node.op_type in {"Gemm", "Conv", "LayerNormalization"} and len(sources) > 2:
        dtype, scale, _ = model.codes(sources[2])
        product = model.codes(sources[0])[1] * model.codes(sources[1])[1]
        said(dtype == TensorProto.INT32, "its bias is no int32")
        said(np.allclose(scale, product, rtol=1e-6, atol=0), "its bias is not on the grid of its products")
        return [0]
    return [0] if node.op_type in WEIGHTED and 1 in weights else [i for i, it in enumerate(sources) if it is not None]


def unit(model, node, said):
    """DQ → node → Q, of one type."""
    inputs = [value for value in node.input if value and model.is_float(value)]
    if node.op_type in {"Clip", "Pad", "Resize"}:
        inputs = inputs[:1]
    said(all(model.dequantised(value) is not None for value in inputs), "an input is not dequantised")
    if any(model.dequantised(value) is None for value in inputs):
        return
    activations = [model.codes(model.dequantised(node.input[i])) for i in parameters(model, node, said)]
    types = {codes[0] for codes in activations}
    for value in filter(model.is_float, node.output):
        readers = model.readers.get(value, [])
        one = len(readers) == 1 and readers[0].op_type == "QuantizeLinear" and value not in model.outputs
        said(one, f"{value} is read by more or other than one quantiser")
        if not one:
            continue
        codes = model.codes(readers[0])
        types.add(codes[0])
        said(codes[1].ndim == 0, "an activation has one scale")
        if node.op_type in MOVES:
            said(same(codes, activations[0]), "it moves values to other codes")
        if node.op_type in FIXED:
            said(codes[1] == np.float32(FIXED[node.op_type]), "its result has not the scale that is asked for")
    said(len(types) == 1 and types <= ACTIVATIONS, f"its inputs and results are of the types {sorted(types)}")


def main():
    model = Model(sys.argv[1])
    broken, units, floats, products = [], 0, [], 0
    for node in model.nodes:

        def said(holds, text, node=node):
            if not holds:
                broken.append(f"{node.op_type} {node.name}: {text}")

        said(node.domain in ("", "ai.onnx"), "no operator of ONNX's own")
        said("Integer" not in node.op_type and not node.op_type.startswith("QLinear"), "an integer operator")
        if node.op_type in QUANTISERS:
            reads = node.input[0]
            if node.op_type == "QuantizeLinear":
                said(model.is_float(reads), "it quantises what is no float")
                said(len([it for it in model.readers[reads] if it.op_type == "QuantizeLinear"]) == 1 or model.dequantised(reads) is not None, "a value has two kinds of codes")
                said(model.codes(node)[0] in ACTIVATIONS, "an activation is neither uint8 nor uint16")
            else:
                quantised = reads in model.maker and model.maker[reads].op_type == "QuantizeLinear"
                said(reads in model.constants or quantised, "it reads neither a quantiser nor constant codes")
                said(not quantised or same(model.codes(node), model.codes(model.maker[reads])), "it reads other codes than its own")
            continue
        values = [*filter(model.is_float, [*node.input, *node.output])]
        if not values or not any(map(model.is_float, node.output)):
            continue
        results = [reader for value in node.output for reader in model.readers.get(value, [])]
        if not results or any(reader.op_type != "QuantizeLinear" for reader in results):
            floats.append(f"{node.op_type} {node.name}")
            continue
        unit(model, node, said)
        units += 1
        sources = [model.dequantised(value) for value in node.input]
        products += node.op_type in WEIGHTED and model.codes(sources[0])[0] == TensorProto.UINT8
    opset = next(it.version for it in model.model.opset_import if it.domain in ("", "ai.onnx"))
    print(json.dumps({"broken": broken, "units": units, "float": floats, "products": products, "opset": opset}))


main()
