#!/usr/bin/env python3
"""Time the step in which one ViT block learns its quantisers, in PyTorch (pip install torch --index-url https://download.pytorch.org/whl/cpu).

    python learn_step_torch.py WIDTH HEADS BATCH STEPS THREADS

What vitq learns in a block with `--method reconstruct`: latent weights and a scale a channel, biases, the steps of the eight activations'
quantisers (four Linears' inputs, q, k, v and the attention weights), the affine parameters of both LayerNorms; straight through the rounding (LSQ,
arXiv 1902.08153). Mean square error against values that were computed before, Adam, no compilation. Prints seconds a step.
"""

import sys
import time

import torch
from torch import nn
from torch.nn import functional as F

TOKENS, BITS, WARM_UP = 197, 4, 3


def rounded(x):
    """Round; the gradient passes straight through."""
    return x + (x.round() - x).detach()


class Quantiser(nn.Module):
    """An activation's quantiser with a step that learns."""

    def __init__(self, low, high):
        super().__init__()
        self.low, self.high = low, high
        self.step = nn.Parameter(torch.tensor(0.2))

    def forward(self, x):
        """x̂"""
        return rounded((x / self.step).clamp(self.low, self.high)) * self.step


class Linear(nn.Module):
    """A Linear whose weight and input are quantised."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.scale = nn.Parameter(torch.full((outputs, 1), 0.02))
        self.units = nn.Parameter(3 * torch.randn(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.input = Quantiser(-8, 7)

    def forward(self, x):
        """y"""
        weight = rounded(self.units.clamp(-7, 7)) * self.scale
        return F.linear(self.input(x), weight, self.bias)


class Block(nn.Module):
    """Attention and MLP, both behind a LayerNorm and beside a residual."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = Linear(width, 3 * width), Linear(width, width)
        self.fc1, self.fc2 = Linear(width, 4 * width), Linear(4 * width, width)
        self.q, self.k, self.v = (Quantiser(-8, 7) for _ in range(3))
        self.p = Quantiser(0, 2**BITS - 1)

    def forward(self, x):
        """The values behind the block."""
        batch, tokens, width = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = self.q(qkv[0]), self.k(qkv[1]), self.v(qkv[2])
        p = self.p(((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)).softmax(-1))
        x = x + self.proj((p @ v).transpose(1, 2).reshape(batch, tokens, width))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


def main():
    """Time the steps."""
    width, heads, batch, steps, threads = map(int, sys.argv[1:])
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    block = Block(width, heads)
    adam = torch.optim.Adam(block.parameters(), 1e-3)
    values, targets = torch.randn(64, TOKENS, width), torch.randn(64, TOKENS, width)
    for step in range(WARM_UP + steps):
        if step == WARM_UP:
            start = time.perf_counter()
        drawn = torch.randint(64, (batch,))
        adam.zero_grad()
        F.mse_loss(block(values[drawn]), targets[drawn]).backward()
        adam.step()
    print((time.perf_counter() - start) / steps)


if __name__ == "__main__":
    main()
