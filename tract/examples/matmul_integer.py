#!/usr/bin/env python3
"""Write the Linears of a QDQ model with MatMulInteger: QuantizeLinear, MatMulInteger, Cast, Mul, Add.

    python matmul_integer.py QDQ.onnx OUT.onnx

Taken are products of an activation with one scale and a symmetric int8 weight, as `vitq quantize` writes them.
"""

import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def main(source, target):
    """Rewrite all that fits."""
    model = onnx.load(source)
    graph = model.graph
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    nodes = []
    for node in graph.node:
        operands = [makers.get(name) for name in node.input[:2]]
        dequantized = all(o is not None and o.op_type == "DequantizeLinear" for o in operands)
        if node.op_type != "MatMul" or not dequantized or operands[1].input[0] not in constants:
            nodes.append(node)
            continue
        (codes, scale, zero), (weight, scales, *_) = (o.input for o in operands)
        y = node.output[0]
        factor = np.float32(constants[scale]) * constants[scales].astype(np.float32)
        graph.initializer.append(numpy_helper.from_array(factor, f"{y}.scales"))
        nodes += [
            helper.make_node("MatMulInteger", [codes, weight, zero], [f"{y}.sums"], f"{node.name}.integer"),
            helper.make_node("Cast", [f"{y}.sums"], [f"{y}.float"], f"{node.name}.float", to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{y}.float", f"{y}.scales"], [y], f"{node.name}.scaled"),
        ]
    read = {name for node in nodes for name in node.input} | {o.name for o in graph.output}
    nodes = [n for n in nodes if read & set(n.output)]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    onnx.save(model, target)


main(*sys.argv[1:])
