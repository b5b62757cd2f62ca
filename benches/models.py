#!/usr/bin/env python3
"""Write a vision transformer of a well-known size with random, trained-like weights (numpy and onnx alone, no torch).

    python models.py {deit_tiny,deit_small,vit_base,swin_tiny} OUT.onnx

Image 224, 1,000 classes, opset 17, symbolic batch; the operators are those of a TorchScript export of timm's class. ViTs: patch 16,
12 blocks, fused qkv taken apart by Split and Squeeze, GELU as an Erf chain, Gemm as head. Swin: see swin.py.
"""

import argparse

import numpy as np
import onnx
import swin
from builder import IMAGE, Builder

SIZES = {"deit_tiny": (192, 3), "deit_small": (384, 6), "vit_base": (768, 12)}  # dim, heads
DEPTH, PATCH = 12, 16
TOKENS = (IMAGE // PATCH) ** 2 + 1


class Vit(Builder):
    """A plain ViT with a class token."""

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


def vit(size, seed=0):
    """Return the ModelProto of a size in SIZES."""
    dim, heads = SIZES[size]
    b = Vit(seed)
    x = b.patches("input", dim)
    for i in range(DEPTH):
        block = f"blocks.{i}"
        y = b.attention(b.layer_norm(x, f"{block}.norm1", dim), f"{block}.attn", dim, heads)
        x = b.node("Add", [x, y], f"/{block}/Add")
        y = b.mlp(b.layer_norm(x, f"{block}.norm2", dim), f"{block}.mlp", dim)
        x = b.node("Add", [x, y], f"/{block}/Add_1")
    x = b.layer_norm(x, "norm", dim)
    x = b.node("Gather", [x, b.constant("token", np.int64(0))], "/Gather", axis=1)
    return b.model(size, (x, dim))


def main():
    """Write one model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", choices=[*SIZES, "swin_tiny"])
    parser.add_argument("out")
    args = parser.parse_args()
    model = swin.tiny() if args.size == "swin_tiny" else vit(args.size)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, args.out)


if __name__ == "__main__":
    main()
