"""What the models of models.py and swin.py are built from: random, trained-like weights and the operators of an export."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

IMAGE, CLASSES = 224, 1000


class Weights:
    """Random parameters with the spread of trained ones, a few outlier channels included."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)

    def linear(self, inputs, outputs):
        """[inputs, outputs]: a normal cut at two sigmas that keeps the variance of its input."""
        w = np.clip(self.random.standard_normal((inputs, outputs), np.float32), -2, 2)
        return w * np.float32(inputs**-0.5)

    def bias(self, channels):
        """[channels]: away from zero."""
        return 0.1 * self.random.standard_normal(channels, np.float32)

    def layer_norm(self, dim):
        """Scale and shift, [dim] each: scales around 1, one channel in a hundred ten times as large."""
        scale = 1 + 0.2 * self.random.standard_normal(dim, np.float32)
        scale[self.random.choice(dim, max(1, dim // 100), replace=False)] *= 10
        return scale, 0.2 * self.random.standard_normal(dim, np.float32)


class Builder:
    """Collects nodes and initialisers; each method returns the name of the value that it made."""

    def __init__(self, seed):
        self.nodes, self.initialisers, self.weights = [], [], Weights(seed)

    def constant(self, name, array):
        """Add an initialiser."""
        self.initialisers.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def node(self, op, inputs, name, outputs=None, **attributes):
        """Add a node called `name`."""
        outputs = outputs or [f"{name}_output_0"]
        self.nodes.append(helper.make_node(op, inputs, outputs, name, **attributes))
        return outputs[0]

    def reshape(self, x, shape, name):
        """Reshape; 0 in the shape keeps a dimension, so that the batch stays symbolic."""
        return self.node("Reshape", [x, self.constant(f"{name}.shape", np.array(shape, np.int64))], name)

    def linear(self, x, module, inputs, outputs):
        """MatMul and Add."""
        path = "/" + module.replace(".", "/")
        weight = self.constant(f"{module}.weight", self.weights.linear(inputs, outputs))
        bias = self.constant(f"{module}.bias", self.weights.bias(outputs))
        return self.node("Add", [bias, self.node("MatMul", [x, weight], f"{path}/MatMul")], f"{path}/Add")

    def layer_norm(self, x, module, dim):
        """LayerNormalization over the last axis."""
        scale, shift = self.weights.layer_norm(dim)
        inputs = [x, self.constant(f"{module}.weight", scale), self.constant(f"{module}.bias", shift)]
        return self.node("LayerNormalization", inputs, f"/{module}/LayerNormalization", axis=-1, epsilon=1e-6)

    def gelu(self, x, path):
        """x/2 (1 + erf(x/sqrt 2)), operator by operator."""
        scalar = {k: self.constant(f"{path}.{k}", np.float32(v)) for k, v in {"root": 2**0.5, "one": 1, "half": 0.5}.items()}
        erf = self.node("Erf", [self.node("Div", [x, scalar["root"]], f"{path}/Div")], f"{path}/Erf")
        gate = self.node("Add", [erf, scalar["one"]], f"{path}/Add")
        return self.node("Mul", [self.node("Mul", [x, gate], f"{path}/Mul"), scalar["half"]], f"{path}/Mul_1")

    def mlp(self, x, module, dim):
        """Linear, GELU, Linear."""
        x = self.gelu(self.linear(x, f"{module}.fc1", dim, 4 * dim), "/" + module.replace(".", "/") + "/act")
        return self.linear(x, f"{module}.fc2", 4 * dim, dim)

    def model(self, name, logits_input):
        """The ModelProto with the head `logits_input` → CLASSES; the batch is symbolic."""
        value = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        dim = logits_input[1]
        weight = self.constant("head.weight", self.weights.linear(dim, CLASSES).T)
        inputs = [logits_input[0], weight, self.constant("head.bias", self.weights.bias(CLASSES))]
        self.node("Gemm", inputs, "/head/Gemm", ["logits"], transB=1)
        images, logits = value("input", ["batch", 3, IMAGE, IMAGE]), value("logits", ["batch", CLASSES])
        graph = helper.make_graph(self.nodes, name, [images], [logits], self.initialisers)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
