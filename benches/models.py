#!/usr/bin/env python3
"""Write a ViT of a well-known size with random, trained-like weights (numpy and onnx alone, no torch).

    python models.py {deit_tiny,deit_small,vit_base} OUT.onnx

Patch 16, image 224, 12 blocks, 1,000 classes, opset 17, symbolic batch; the operators are those of a TorchScript
export of timm's class: fused qkv taken apart by Split and Squeeze, GELU as an Erf chain, Gemm as head.
"""

import argparse

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZES = {"deit_tiny": (192, 3), "deit_small": (384, 6), "vit_base": (768, 12)}  # dim, heads
DEPTH, IMAGE, PATCH, CLASSES = 12, 224, 16, 1000
TOKENS = (IMAGE // PATCH) ** 2 + 1


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

    def patches(self, x, dim):
        """Patch embedding, class token and position embedding: [batch, TOKENS, dim]."""
        kernel = self.weights.linear(3 * PATCH**2, dim).T.reshape(dim, 3, PATCH, PATCH)
        inputs = [x, self.constant("patch_embed.proj.weight", kernel), self.constant("patch_embed.proj.bias", self.weights.bias(dim))]
        x = self.node("Conv", inputs, "/patch_embed/proj/Conv", kernel_shape=[PATCH, PATCH], strides=[PATCH, PATCH])
        x = self.reshape(x, [0, dim, -1], "/patch_embed/Reshape")
        x = self.node("Transpose", [x], "/patch_embed/Transpose", perm=[0, 2, 1])
        batch = self.node("Shape", [x], "/Shape", start=0, end=1)
        shape = self.node("Concat", [batch, self.constant("cls_token.shape", np.array([1, dim], np.int64))], "/Concat", axis=0)
        token = self.constant("cls_token", 0.5 * self.weights.random.standard_normal((1, 1, dim), np.float32))
        x = self.node("Concat", [self.node("Expand", [token, shape], "/Expand"), x], "/Concat_1", axis=1)
        position = self.constant("pos_embed", 0.3 * self.weights.random.standard_normal((1, TOKENS, dim), np.float32))
        return self.node("Add", [x, position], "/Add")

    def attention(self, x, module, dim, heads):
        """Fused qkv, two products, projection."""
        path = "/" + module.replace(".", "/")
        qkv = self.linear(x, f"{module}.qkv", dim, 3 * dim)
        qkv = self.reshape(qkv, [0, TOKENS, 3, heads, dim // heads], f"{path}/Reshape")
        qkv = self.node("Transpose", [qkv], f"{path}/Transpose", perm=[2, 0, 3, 1, 4])
        parts = [f"{path}/Split_output_{i}" for i in range(3)]
        self.node("Split", [qkv, self.constant(f"{path}.split", np.ones(3, np.int64))], f"{path}/Split", parts, axis=0)
        first = self.constant(f"{path}.axes", np.zeros(1, np.int64))
        q, k, v = (self.node("Squeeze", [part, first], f"{path}/Squeeze_{i}") for i, part in enumerate(parts))
        q = self.node("Mul", [q, self.constant(f"{path}.scale", np.float32((dim // heads) ** -0.5))], f"{path}/Mul")
        k = self.node("Transpose", [k], f"{path}/Transpose_1", perm=[0, 1, 3, 2])
        p = self.node("Softmax", [self.node("MatMul", [q, k], f"{path}/MatMul")], f"{path}/Softmax", axis=-1)
        y = self.node("Transpose", [self.node("MatMul", [p, v], f"{path}/MatMul_1")], f"{path}/Transpose_2", perm=[0, 2, 1, 3])
        return self.linear(self.reshape(y, [0, TOKENS, dim], f"{path}/Reshape_1"), f"{module}.proj", dim, dim)

    def mlp(self, x, module, dim):
        """Linear, GELU, Linear."""
        x = self.gelu(self.linear(x, f"{module}.fc1", dim, 4 * dim), "/" + module.replace(".", "/") + "/act")
        return self.linear(x, f"{module}.fc2", 4 * dim, dim)


def vit(size, seed=0):
    """Return the ModelProto of a size in SIZES."""
    dim, heads = SIZES[size]
    b = Builder(seed)
    x = b.patches("input", dim)
    for i in range(DEPTH):
        block = f"blocks.{i}"
        y = b.attention(b.layer_norm(x, f"{block}.norm1", dim), f"{block}.attn", dim, heads)
        x = b.node("Add", [x, y], f"/{block}/Add")
        y = b.mlp(b.layer_norm(x, f"{block}.norm2", dim), f"{block}.mlp", dim)
        x = b.node("Add", [x, y], f"/{block}/Add_1")
    x = b.layer_norm(x, "norm", dim)
    x = b.node("Gather", [x, b.constant("token", np.int64(0))], "/Gather", axis=1)
    weight = b.constant("head.weight", b.weights.linear(dim, CLASSES).T)
    b.node("Gemm", [x, weight, b.constant("head.bias", b.weights.bias(CLASSES))], "/head/Gemm", ["logits"], transB=1)

    value = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
    inputs, outputs = [value("input", ["batch", 3, IMAGE, IMAGE])], [value("logits", ["batch", CLASSES])]
    graph = helper.make_graph(b.nodes, size, inputs, outputs, b.initialisers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def main():
    """Write one model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("out")
    args = parser.parse_args()
    model = vit(args.size)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, args.out)


if __name__ == "__main__":
    main()
