"""Holds a model against what TensorRT's documentation asks of quantised graphs and prints what breaks it, as JSON.

tensorrt.py MODEL: the rules of "Working with Quantized Types" and of ONNX-TensorRT's operator table.
"""

import json
import sys

import onnx
from onnx import TensorProto, numpy_helper

PRODUCTS = {"MatMul", "Gemm", "Conv"}


def main():
    model = onnx.load(sys.argv[1])
    onnx.checker.check_model(model, full_check=True)
    nodes = model.graph.node
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    maker = {name: node for node in nodes for name in node.output}
    broken = []

    def made_by(value, operator):
        return value in maker and maker[value].op_type == operator

    def rule(node, holds, text):
        if not holds:
            broken.append(f"{node.name}: {text}")

    products = 0
    for node in nodes:
        rule(node, node.domain in ("", "ai.onnx"), "no operator of ONNX's own")
        rule(node, "Integer" not in node.op_type and not node.op_type.startswith("QLinear"), "an integer operator")
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            scale, zero = (constants.get(name) for name in [*node.input[1:], ""][:2])
            rule(node, scale is not None and zero is not None, "scale and zero point are no constants")
            rule(node, zero is not None and zero.data_type == TensorProto.INT8, "its codes are no int8")
            rule(node, zero is not None and not numpy_helper.to_array(zero).any(), "its zero point is not 0")
        if node.op_type == "QuantizeLinear":
            rule(node, not constants[node.input[1]].dims, "an activation has one scale")
            source = maker.get(node.input[0])
            bias = source is not None and source.op_type == "Add" and any(i in constants for i in source.input)
            inner = source if not bias else next((maker[i] for i in source.input if i in maker), None)
            rule(node, inner is None or inner.op_type not in PRODUCTS, "it stands on a product's result")
        if node.op_type == "DequantizeLinear":
            stored = constants.get(node.input[0])
            codes = made_by(node.input[0], "QuantizeLinear") or stored is not None and stored.data_type == TensorProto.INT8
            rule(node, codes, "it reads neither a QuantizeLinear nor int8 weights")
        if node.op_type in PRODUCTS:
            quantised = [made_by(value, "DequantizeLinear") for value in node.input[:2]]
            rule(node, all(quantised) or not any(quantised), "only one of its inputs is quantised")
            products += all(quantised)
    opset = next(it.version for it in model.opset_import if it.domain in ("", "ai.onnx"))
    print(json.dumps({"broken": broken, "products": products, "opset": opset}))


main()
