"""Swin-T (arXiv 2103.14030) as ONNX: windows of 7 by 7, shifted in every second block, as an export of timm's class has them."""

import numpy as np
from builder import IMAGE, Builder

PATCH, WINDOW, DIM = 4, 7, 96
DEPTHS, HEADS = (2, 2, 6, 2), (3, 6, 12, 24)
TOKENS = WINDOW**2


class Swin(Builder):
    """Values between blocks are [batch, side, side, channels]."""

    def patches(self, x):
        """Patch embedding and its norm."""
        kernel = self.weights.linear(3 * PATCH**2, DIM).T.reshape(DIM, 3, PATCH, PATCH)
        inputs = [x, self.constant("patch_embed.proj.weight", kernel), self.constant("patch_embed.proj.bias", self.weights.bias(DIM))]
        x = self.node("Conv", inputs, "/patch_embed/proj/Conv", kernel_shape=[PATCH, PATCH], strides=[PATCH, PATCH])
        x = self.node("Transpose", [x], "/patch_embed/Transpose", perm=[0, 2, 3, 1])
        return self.layer_norm(x, "patch_embed.norm", DIM)

    def slice(self, x, start, end, axis, path):
        """x[start:end] along one axis."""
        constant = lambda what, value: self.constant(f"{path}.{what}", np.array([value], np.int64))
        return self.node("Slice", [x, constant("start", start), constant("end", end), constant("axis", axis)], path)

    def roll(self, x, by, path):
        """Rows and columns moved on by `by`, around the edge."""
        for axis in (1, 2):
            last = self.slice(x, -by, np.iinfo(np.int64).max, axis, f"{path}/Slice_{axis}")
            first = self.slice(x, 0, -by, axis, f"{path}/Slice_{axis}_1")
            x = self.node("Concat", [last, first], f"{path}/Concat_{axis}", axis=axis)
        return x

    def windows(self, x, side, dim, path):
        """[batch·windows, TOKENS, dim]"""
        x = self.reshape(x, [-1, side // WINDOW, WINDOW, side // WINDOW, WINDOW, dim], f"{path}/split")
        x = self.node("Transpose", [x], f"{path}/Transpose", perm=[0, 1, 3, 2, 4, 5])
        return self.reshape(x, [-1, TOKENS, dim], f"{path}/Reshape")

    def whole(self, x, side, dim, path):
        """What `windows` took apart."""
        x = self.reshape(x, [-1, side // WINDOW, side // WINDOW, WINDOW, WINDOW, dim], f"{path}/split")
        x = self.node("Transpose", [x], f"{path}/Transpose", perm=[0, 1, 3, 2, 4, 5])
        return self.reshape(x, [-1, side, side, dim], f"{path}/Reshape")

    def attention(self, x, module, dim, heads, mask):
        """Attention within windows, with a bias by relative position and, where windows were shifted, a mask."""
        path = "/" + module.replace(".", "/")
        qkv = self.linear(x, f"{module}.qkv", dim, 3 * dim)
        qkv = self.reshape(qkv, [-1, TOKENS, 3, heads, dim // heads], f"{path}/Reshape")
        qkv = self.node("Transpose", [qkv], f"{path}/Transpose", perm=[2, 0, 3, 1, 4])
        index = lambda i: self.constant(f"{path}.index_{i}", np.int64(i))
        q, k, v = (self.node("Gather", [qkv, index(i)], f"{path}/Gather_{i}", axis=0) for i in range(3))
        q = self.node("Mul", [q, self.constant(f"{path}.scale", np.float32((dim // heads) ** -0.5))], f"{path}/Mul")
        k = self.node("Transpose", [k], f"{path}/Transpose_1", perm=[0, 1, 3, 2])
        bias = 0.5 * self.weights.random.standard_normal((1, heads, TOKENS, TOKENS), np.float32)
        a = self.node("MatMul", [q, k], f"{path}/MatMul")
        a = self.node("Add", [a, self.constant(f"{module}.position", bias)], f"{path}/Add")
        if mask is not None:
            a = self.reshape(a, [-1, len(mask), heads, TOKENS, TOKENS], f"{path}/Reshape_1")
            a = self.node("Add", [a, self.constant(f"{module}.mask", mask[None, :, None])], f"{path}/Add_1")
            a = self.reshape(a, [-1, heads, TOKENS, TOKENS], f"{path}/Reshape_2")
        p = self.node("Softmax", [a], f"{path}/Softmax", axis=-1)
        y = self.node("Transpose", [self.node("MatMul", [p, v], f"{path}/MatMul_1")], f"{path}/Transpose_2", perm=[0, 2, 1, 3])
        return self.linear(self.reshape(y, [-1, TOKENS, dim], f"{path}/Reshape_3"), f"{module}.proj", dim, dim)

    def block(self, x, module, side, dim, heads, shift):
        """Norm, attention in windows, norm, MLP; both with a residual."""
        path = "/" + module.replace(".", "/")
        y = self.layer_norm(x, f"{module}.norm1", dim)
        if shift:
            # A roll by -shift is one by side - shift.
            y = self.roll(y, side - shift, f"{path}/roll")
        y = self.windows(y, side, dim, f"{path}/windows")
        y = self.attention(y, f"{module}.attn", dim, heads, mask(side, shift) if shift else None)
        y = self.whole(y, side, dim, f"{path}/whole")
        if shift:
            y = self.roll(y, shift, f"{path}/back")
        x = self.node("Add", [x, y], f"{path}/Add")
        y = self.mlp(self.layer_norm(x, f"{module}.norm2", dim), f"{module}.mlp", dim)
        return self.node("Add", [x, y], f"{path}/Add_1")

    def merge(self, x, module, side, dim):
        """Two by two patches become one of twice the channels."""
        path = "/" + module.replace(".", "/")
        x = self.reshape(x, [-1, side // 2, 2, side // 2, 2, dim], f"{path}/split")
        x = self.node("Transpose", [x], f"{path}/Transpose", perm=[0, 1, 3, 4, 2, 5])
        x = self.layer_norm(self.reshape(x, [-1, side // 2, side // 2, 4 * dim], f"{path}/Reshape"), f"{module}.norm", 4 * dim)
        weight = self.constant(f"{module}.reduction.weight", self.weights.linear(4 * dim, 2 * dim))
        return self.node("MatMul", [x, weight], f"{path}/reduction/MatMul")


def mask(side, shift):
    """[windows, TOKENS, TOKENS]: -100 between tokens that the shift brought together from different edges."""
    region = np.zeros(side, int)
    region[-WINDOW:-shift], region[-shift:] = 1, 2
    regions = 3 * region[:, None] + region[None, :]
    regions = regions.reshape(side // WINDOW, WINDOW, side // WINDOW, WINDOW).transpose(0, 2, 1, 3).reshape(-1, TOKENS)
    return np.where(regions[:, :, None] == regions[:, None, :], 0, -100).astype(np.float32)


def tiny(seed=0):
    """Return the ModelProto of Swin-T."""
    b = Swin(seed)
    x, side, dim = b.patches("input"), IMAGE // PATCH, DIM
    for stage, (depth, heads) in enumerate(zip(DEPTHS, HEADS, strict=True)):
        if stage:
            x = b.merge(x, f"layers.{stage}.downsample", side, dim)
            side, dim = side // 2, 2 * dim
        for i in range(depth):
            shift = WINDOW // 2 if i % 2 and side > WINDOW else 0
            x = b.block(x, f"layers.{stage}.blocks.{i}", side, dim, heads, shift)
    x = b.layer_norm(x, "norm", dim)
    return b.model("swin_tiny", (b.node("ReduceMean", [x], "/head/pool", axes=[1, 2], keepdims=0), dim))
