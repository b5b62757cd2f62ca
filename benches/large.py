#!/usr/bin/env python3
"""Does a model of more than 2 GB, the most that one protobuf file holds, go through inspect, quantize and ONNX Runtime?

    python benches/large.py VITQ [--width 4096] [--blocks 3] [--mostly-float]

Makes a ViT with random weights as external data (2.4 GB) in a temporary folder, quantises it on two images and prints
seconds, peak memory and bytes of each step, and the SQNR in ONNX Runtime. Needs three times the model's room on the
disk. `--mostly-float` keeps all Linears but the head float: a result above 2 GB, which gets a data file too.
"""

import argparse
import pathlib
import resource
import subprocess
import tempfile
import time

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

IMAGE, PATCH, HEADS = 32, 16, 16


class Builder:
    """Nodes and initialisers; weights go straight into the data file."""

    def __init__(self, data):
        self.data, self.nodes, self.constants, self.random = data, [], [], np.random.default_rng(7)

    def op(self, kind, *inputs, **attributes):
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def weight(self, *shape, mean=0.0, spread=None):
        spread = spread or shape[0] ** -0.5
        values = self.random.standard_normal(shape, np.float32) * np.float32(spread) + np.float32(mean)
        tensor = TensorProto(name=f"weight_{len(self.constants)}", data_type=TensorProto.FLOAT, dims=shape)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "large.data"), ("offset", self.data.tell()), ("length", values.nbytes)):
            tensor.external_data.add(key=key, value=str(value))
        self.data.write(values.data)
        self.constants.append(tensor)
        return tensor.name

    def shape(self, *numbers):
        name = f"shape_{len(self.constants)}"
        self.constants.append(helper.make_tensor(name, TensorProto.INT64, [len(numbers)], numbers))
        return name

    def scalar(self, value):
        name = f"scalar_{len(self.constants)}"
        self.constants.append(helper.make_tensor(name, TensorProto.FLOAT, [], [value]))
        return name

    def norm(self, x, width):
        return self.op("LayerNormalization", x, self.weight(width, mean=1, spread=0.3), self.weight(width, spread=0.3),
                       epsilon=1e-6)

    def linear(self, x, inputs, outputs):
        product = self.op("MatMul", x, self.weight(inputs, outputs))
        return self.op("Add", self.weight(outputs, spread=0.2), product)


def build(folder, width, blocks):
    """Write the model and its data file."""
    with open(folder / "large.data", "wb") as data:
        b = Builder(data)
        kernel = b.weight(width, 3, PATCH, PATCH, spread=(3 * PATCH * PATCH) ** -0.5)
        x = b.op("Conv", "input", kernel, strides=[PATCH, PATCH], kernel_shape=[PATCH, PATCH])
        x = b.op("Transpose", b.op("Reshape", x, b.shape(0, width, -1)), perm=[0, 2, 1])
        for _ in range(blocks):
            y = b.norm(x, width)
            q, k, v = (b.op("Reshape", b.linear(y, width, width), b.shape(0, -1, HEADS, width // HEADS)) for _ in "qkv")
            q, v = (b.op("Transpose", part, perm=[0, 2, 1, 3]) for part in (q, v))
            scores = b.op("MatMul", q, b.op("Transpose", k, perm=[0, 2, 3, 1]))
            scores = b.op("Softmax", b.op("Mul", scores, b.scalar((width / HEADS) ** -0.5)), axis=-1)
            y = b.op("Transpose", b.op("MatMul", scores, v), perm=[0, 2, 1, 3])
            x = b.op("Add", x, b.linear(b.op("Reshape", y, b.shape(0, -1, width)), width, width))
            y = b.linear(b.norm(x, width), width, 4 * width)
            y = b.op("Mul", y, b.op("Sigmoid", y))
            x = b.op("Add", x, b.linear(y, 4 * width, width))
        x = b.op("ReduceMean", b.norm(x, width), axes=[1], keepdims=0)
        b.linear(x, width, 10)
    b.nodes[-1].output[0] = "logits"
    graph = helper.make_graph(
        b.nodes, "large", [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, IMAGE, IMAGE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])], b.constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "large.onnx")
    onnx.checker.check_model(str(folder / "large.onnx"))


def run(*command):
    """Run a command; its seconds, and the peak of its memory in MB (of the largest child so far)."""
    start = time.monotonic()
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000


def logits(path, images):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"input": images})[0].astype(np.float64)


def size(path):
    """Bytes of a model and its data."""
    return sum(file.stat().st_size for file in path.parent.glob(path.stem + "*"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vitq")
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--mostly-float", action="store_true", help="keep so much float that the result exceeds 2 GB")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        build(folder, args.width, args.blocks)
        model, out = folder / "large.onnx", folder / "out.onnx"
        print(f"model: {size(model) / 1e6:.0f} MB")
        images = np.random.default_rng(1).standard_normal((2, 3, IMAGE, IMAGE)).astype(np.float32)
        np.save(folder / "images.npy", images)
        print("inspect: {:.1f} s, {:.0f} MB".format(*run(args.vitq, "inspect", model)))
        kept = []
        if args.mostly_float:
            nodes = onnx.load(model, load_external_data=False).graph.node
            linears = [n.name for n in nodes if n.op_type == "MatMul" and n.input[1].startswith("weight_")]
            kept = [part for linear in linears[:-1] for part in ("--keep-float", linear)]
        figures = run(args.vitq, "quantize", model, "--calib", folder / "images.npy", "-o", out, "--quiet", *kept)
        print("quantize: {:.1f} s, {:.0f} MB".format(*figures))
        print(f"result: {size(out) / 1e6:.0f} MB in {len(list(folder.glob('out.onnx*')))} files")
        truth, got = logits(model, images), logits(out, images)
        noise = np.square(truth - got).sum()
        print(f"SQNR in ONNX Runtime: {10 * np.log10(np.square(truth).sum() / noise):.1f} dB")


if __name__ == "__main__":
    main()
