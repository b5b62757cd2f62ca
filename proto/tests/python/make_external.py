"""Writes one model twice: whole, and with all tensors in a data file.

    make_external.py WHOLE EXTERNAL

Tensors stand in the main graph, in a Constant, in the graphs of an If and in a function.
"""

import sys

import numpy as np
import onnx
from onnx import TensorProto as T, helper as h, numpy_helper

rng = np.random.default_rng(2)
SIZE = 700


def tensor(name):
    return numpy_helper.from_array(rng.standard_normal(SIZE).astype(np.float32), name)


def typed(name):
    return h.make_tensor(name, T.FLOAT, [SIZE], rng.standard_normal(SIZE).astype(np.float32))


def value(name):
    return h.make_tensor_value_info(name, T.FLOAT, [SIZE])


def constant(name):
    return h.make_node("Constant", [], [name], value=tensor(name))


def branch(name):
    nodes = [constant(f"{name}_c"), h.make_node("Add", ["x", f"{name}_c"], [f"{name}_s"]),
             h.make_node("Mul", [f"{name}_s", f"{name}_w"], [f"{name}_y"])]
    return h.make_graph(nodes, name, [], [value(f"{name}_y")], [typed(f"{name}_w")])


opsets = [h.make_opsetid("", 21), h.make_opsetid("local", 1)]
function = h.make_function("local", "Shift", ["a"], ["b"], [constant("f_c"), h.make_node("Add", ["a", "f_c"], ["b"])],
                           opsets[:1])
nodes = [
    h.make_node("If", ["yes"], ["i"], then_branch=branch("then"), else_branch=branch("else")),
    constant("c"),
    h.make_node("Add", ["i", "c"], ["j"]),
    h.make_node("Shift", ["j"], ["k"], domain="local"),
    h.make_node("Mul", ["k", "w"], ["y"]),
]
small = numpy_helper.from_array(np.array(True), "yes")
graph = h.make_graph(nodes, "external", [value("x")], [value("y")], [small, tensor("w")])
model = h.make_model(graph, opset_imports=opsets, functions=[function], ir_version=10)
onnx.checker.check_model(model)
onnx.save(model, sys.argv[1])
onnx.save(model, sys.argv[2], save_as_external_data=True, size_threshold=0, convert_attribute=True,
          location="all.bin")
