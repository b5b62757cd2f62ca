#!/usr/bin/env python3
"""One step of a block that learns its quantisers: vitq next to PyTorch, or on a GPU next to the processor, time and memory.

    python -m venv .venv-torch && .venv-torch/bin/pip install torch --index-url https://download.pytorch.org/whl/cpu
    cargo build --release --features learn
    python benches/learn_step.py --torch .venv-torch/bin/python [--sizes deit_tiny deit_small] [--steps 20] [--rounds 3] [--json OUT]
    cargo build --release --features cuda && python benches/learn_step.py --gpu        where there is one

vitq: `quantize --method reconstruct` of a whole model with one step a block and with so many more; the difference, over those steps of its twelve
blocks (what the patch embedding and the head learn beside them is counted in; what is done once, as the samples' values behind each block
and what errors there cost, is not). PyTorch: learn_step_torch.py, a block of the same size
with the same numbers to learn. Both draw 16 samples a step and have 2 threads; they take turns, and the median counts. Memory is that of the
whole process at its peak, for vitq with the float model, calibration and the samples' values.
"""

# Only the standard library here: a child's peak memory starts at the size of its parent.
import argparse
import json
import os
import pathlib
import statistics
import sys
import tempfile

from quantize import HERE, measured, python

SIZES = {"deit_tiny": (192, 3), "deit_small": (384, 6), "vit_base": (768, 12)}  # width, heads
BLOCKS, BATCH, THREADS, IMAGES = 12, 16, 2, 8


def steps(args, work, count, device="cpu"):
    """Seconds and peak megabytes of vitq with so many steps a block."""
    files = [work / "float.onnx", "--calib", work / "images", "-o", work / "vitq.onnx", "--samples", IMAGES]
    form = ["--bits", "w4a4", "--scope", "all", "--codes", "uniform", "--preprocess", "inception", "--quiet"]
    learning = ["--method", "reconstruct", "--block-steps", count, "--device", device]
    return measured([str(word) for word in [args.vitq, "quantize", *files, *form, *learning]])


def vitq(args, work, device):
    """Milliseconds of a step and peak megabytes."""
    once, learned = steps(args, work, 1, device), steps(args, work, 1 + args.steps, device)
    return 1e3 * (learned["wall_s"] - once["wall_s"]) / (args.steps * BLOCKS), learned["peak_mb"]


def torch(args, size):
    """The same of PyTorch."""
    command = [args.torch, HERE / "learn_step_torch.py", *SIZES[size], BATCH, args.steps, THREADS]
    run = measured([str(word) for word in command])
    return 1e3 * float(run["output"]), run["peak_mb"]


def compare(args, size, work):
    """The figures of one size."""
    python("models.py", size, work / "float.onnx")
    python("images.py", work / "images", "--count", IMAGES)
    rows = []
    for _ in range(args.rounds):
        ms, mb = vitq(args, work, "cuda" if args.gpu else "cpu")
        other_ms, other_mb = vitq(args, work, "cpu") if args.gpu else torch(args, size)
        rows.append({"vitq_ms": ms, "other_ms": other_ms, "vitq_mb": mb, "other_mb": other_mb})
    figures = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    ratios = [row["other_ms"] / row["vitq_ms"] for row in rows]
    return figures | {"times_faster": statistics.median(ratios), "least": min(ratios), "most": max(ratios)}


def main():
    """Print a row for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    other = parser.add_mutually_exclusive_group(required=True)
    other.add_argument("--torch", help="a Python interpreter that has torch")
    other.add_argument("--gpu", action="store_true", help="compare vitq's --device cuda with its processor instead")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["deit_tiny", "deit_small"])
    parser.add_argument("--steps", type=int, default=20, help="steps of each block")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--vitq", type=pathlib.Path, default=HERE.parent / "target/release/vitq")
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    name, other = ("vitq on the GPU", "processor") if args.gpu else ("vitq", "torch")
    print(f"one step of one block, {BATCH} samples, {THREADS} threads, median of {args.rounds} rounds")
    table = {}
    for size in args.sizes:
        with tempfile.TemporaryDirectory() as work:
            row = table[size] = compare(args, size, pathlib.Path(work))
        print(
            f"{size:<12} {name} {row['vitq_ms']:7.0f} ms {row['vitq_mb']:6.0f} MB   {other} {row['other_ms']:7.0f} ms {row['other_mb']:6.0f} MB"
            f"   {row['times_faster']:.2f} times as fast ({row['least']:.2f} to {row['most']:.2f})",
            flush=True,
        )
    if args.json:
        args.json.write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    sys.exit(main())
