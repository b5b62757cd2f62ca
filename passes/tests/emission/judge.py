"""Judges an emitted model against NumPy, the ONNX checker and ONNX Runtime.

Usage: judge.py CHECK FOLDER [ARGUMENT…]. The folder holds float.onnx, quantised.onnx and plan.json. Each check computes what
the plan's documented formulas say with NumPy alone and compares ONNX Runtime's result, optimised and plain. The
last line printed is "judged"; anything wrong ends in an assertion.
"""

import json
import pathlib
import sys

import numpy as np
import onnx
import onnx.version_converter
import onnxruntime as ort
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

try:
    import openvino as ov
except ImportError:
    ov = None


class Case:
    """Both models, the plan, and the float model's constants."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.float = onnx.load(self.folder / "float.onnx")
        self.quantised = onnx.load(self.folder / "quantised.onnx")
        onnx.checker.check_model(self.quantised, full_check=True)
        self.plan = json.loads((self.folder / "plan.json").read_text())
        self.constants = {t.name: numpy_helper.to_array(t) for t in self.float.graph.initializer}
        self.same_interface()

    def same_interface(self):
        """Inputs and outputs keep their names and types."""
        before, after = self.float.graph, self.quantised.graph
        assert list(before.input) == list(after.input), "graph inputs were changed"
        assert list(before.output) == list(after.output), "graph outputs were changed"

    def decision(self, site, kind):
        """What the plan decided for a site."""
        return next(s["decision"][kind] for s in self.plan["sites"] if s["site"] == site)

    def input(self, batch=2, scale=1.0):
        """A random input of the declared shape."""
        value = self.float.graph.input[0]
        shape = [d.dim_value or batch for d in value.type.tensor_type.shape.dim]
        return (np.random.default_rng(5).normal(size=shape) * scale).astype(np.float32)

    def run(self, model, x, optimised=True, keep=None, exact_products=False):
        """All outputs of a model in ONNX Runtime."""
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        if not optimised:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        if exact_products:
            options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
        if keep:
            options.optimized_model_filepath = str(keep)
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return session.run(None, {session.get_inputs()[0].name: x})

    def both(self, x):
        """Outputs of the quantised model, optimised and plain."""
        return self.run(self.quantised, x), self.run(self.quantised, x, optimised=False)

    def fused(self, x):
        """Operators of the quantised model after ONNX Runtime's optimisations."""
        kept = self.folder / "optimised.onnx"
        self.run(self.quantised, x, keep=kept)
        return [node.op_type for node in onnx.load(kept).graph.node]


def quantise(x, activation):
    """Integer codes, their zero point and step, of a uniform or codebook quantiser."""
    kind, a = next(iter(activation.items()))
    scale = np.float32(a["scale"])
    if kind == "uniform":
        codes = np.rint((x / scale).astype(np.float32)).astype(np.int64) + a["zero_point"]
        return np.clip(codes, 0, 2 ** a["bits"] - 1), a["zero_point"], scale
    codes = np.full(x.shape, a["segments"][0]["from"], np.int64)
    for segment in a["segments"]:
        step = segment["step"]
        level = step * np.rint((x / np.float32(step * scale)).astype(np.float32)).astype(np.int64)
        codes += np.clip(level, segment["from"], segment["to"]) - segment["from"]
    return codes, 0, scale


def dequantised(x, activation):
    """Float value behind a quantiser."""
    codes, zero, step = quantise(x, activation)
    return (codes - zero).astype(np.float32) * step


def linear(x, plan):
    """A Linear in integers: int64 product, int32 bias on the product's grid, one multiplication by the step."""
    if plan["pre_scale"]:
        x = x * np.array(plan["pre_scale"], np.float32)
    codes, zero, step = quantise(x, plan["activation"])
    weight = plan["weight"]
    rows = np.array(weight["codes"], np.int64).reshape(weight["out"], -1)
    rows = rows - np.array(weight["zero_point"] or [0] * weight["out"], np.int64)[:, None]
    scale = step * np.array(weight["scale"], np.float32)
    bias = np.rint(np.array(plan["bias"], np.float64) / scale).astype(np.int64)
    y = ((codes - zero) @ rows.T + bias).astype(np.float32) * scale
    if plan["low_rank"]:
        y = y + x @ branch(plan["low_rank"]).T
    return y


def branch(low_rank):
    """Both factors of a branch as one weight."""
    down = np.array(low_rank["down"], np.float32).reshape(low_rank["rank"], -1)
    return np.array(low_rank["up"], np.float32).reshape(-1, low_rank["rank"]) @ down


def weights_alone(case, site, fuses=None):
    """A Linear that reads the network's input as it is, with a rounded weight, one scale a row or a block of it, and its branch merged
    into that. ONNX Runtime's fused product rounds its input too unless it is told not to."""
    x, plan = case.input(), case.decision(site, "linear")
    assert plan["activation"] == "float"
    weight = plan["weight"]
    rows = np.array(weight["codes"], np.float64).reshape(weight["out"], -1)
    scale = np.array(weight["scale"]).reshape(weight["out"], -1)
    zero = np.array(weight["zero_point"] or np.zeros(scale.size)).reshape(scale.shape)
    inputs = rows.shape[1]
    zero, scale = (np.repeat(it, weight["block"] or inputs, axis=1)[:, :inputs] for it in (zero, scale))
    rows = (rows - zero) * scale
    if plan["low_rank"]:
        rows = rows + branch(plan["low_rank"])
    want = x @ rows.T + np.array(plan["bias"])
    outputs = [case.run(case.quantised, x, optimised=False), case.run(case.quantised, x, exact_products=True)]
    for output, in [*outputs, reference(case.quantised, x)]:
        assert np.ptp(want) > 0, "the reference is constant"
        np.testing.assert_allclose(output, want, rtol=1e-5, atol=1e-5 * np.abs(want).max())
    fused = case.fused(x)
    assert not fuses or (fuses in fused and "MatMul" not in fused), f"no {fuses} in {fused}"


def exact(case, *sites, fuses="MatMulIntegerToFloat"):
    """Linears that read the network's input: every output equals the integer arithmetic bit for bit.

    The plan's scales are powers of two and its sums small, so no float operation rounds."""
    x = case.input()
    wanted = [linear(x, case.decision(site, "linear")) for site in sites]
    for outputs in case.both(x):
        for output, want in zip(outputs, wanted, strict=True):
            assert np.ptp(want) > 0, "the reference is constant"
            np.testing.assert_array_equal(output, want)
    assert fuses in case.fused(x), f"no {fuses} in {case.fused(x)}"


def close(case, *sites, folds=None):
    """Linears that read the network's input, with any scales; of what ONNX Runtime `folds` when it loads the model nothing is left."""
    x = case.input()
    wanted = [linear(x, case.decision(site, "linear")) for site in sites]
    for outputs in case.both(x):
        for output, want in zip(outputs, wanted, strict=True):
            assert np.ptp(want) > 0, "the reference is constant"
            np.testing.assert_allclose(output, want, rtol=1e-5, atol=1e-5 * np.abs(want).max())
    if folds:
        assert folds in {node.op_type for node in case.quantised.graph.node}
        assert folds not in case.fused(x), f"{folds} in {case.fused(x)}"


def reference(model, x):
    """Outputs in onnx's reference evaluator, which knows DequantizeLinear from operator set 19 on alone."""
    if max(opset.version for opset in model.opset_import if not opset.domain) < 19:
        model = onnx.version_converter.convert_version(model, 19)
    evaluator = ReferenceEvaluator(model)
    return evaluator.run(None, {evaluator.input_names[0]: x})


def openvino(model, x):
    """Outputs in OpenVINO on the CPU, in float32 where it would choose less."""
    core = ov.Core()
    compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return [np.array(output) for output in compiled([x]).values()]


def everywhere(case, *sites):
    """As `exact`, in onnx's reference evaluator too, and in OpenVINO where it is installed (exact with VNNI alone), whatever ONNX Runtime fuses."""
    x = case.input()
    wanted = [linear(x, case.decision(site, "linear")) for site in sites]
    others = [reference(case.quantised, x)]
    if ov:
        others.append(openvino(case.quantised, x))
    for outputs in [*case.both(x), *others]:
        for output, want in zip(outputs, wanted, strict=True):
            assert np.ptp(want) > 0, "the reference is constant"
            np.testing.assert_array_equal(output, want)


def biases(case, site):
    """Where weight rows are next to nothing, the output is the bias; the other channels are the usual product."""
    x = case.input()
    plan = case.decision(site, "linear")
    want = linear(x, plan)
    bias = np.array(plan["bias"], np.float32)
    steps = np.array(plan["weight"]["scale"][:2]) * quantise(x, plan["activation"])[2]
    assert (np.abs(bias[:2] / steps) > 2**31).all(), "the bias fits as it is: nothing is tested"
    for (output,) in case.both(x):
        np.testing.assert_allclose(output[..., :2], np.broadcast_to(bias[:2], output[..., :2].shape), rtol=1e-5)
        np.testing.assert_array_equal(output[..., 2:], want[..., 2:])


def patches(case, site, size):
    """A patch embedding is a Linear on patches in the order [channel, row, column]."""
    size = int(size)
    x = case.input()
    batch, channels, height, width = x.shape
    cut = x.reshape(batch, channels, height // size, size, width // size, size).transpose(0, 2, 4, 1, 3, 5)
    plan = dict(case.decision(site, "linear"))
    if plan["pre_scale"]:
        plan["pre_scale"] = np.repeat(plan["pre_scale"], size * size).tolist()
    want = linear(cut.reshape(batch, -1, channels * size * size), plan).transpose(0, 2, 1)
    for (output,) in case.both(x):
        np.testing.assert_array_equal(output.reshape(want.shape), want)


def logarithmic(x, bits, step, shift):
    """k = round(-log2(x/δ)/step), zero for k ≥ 2^bits (or what uint8 leaves), δ = 2^(-shift·step); step ½ in RepQ-ViT's form with its parity factor √2."""
    delta = 2.0 ** (-shift * step)
    if step != 0.5:
        with np.errstate(divide="ignore"):
            k = np.maximum(np.rint(-np.log2(x.astype(np.float64) / delta) / step), 0)
        return np.where(k >= min(2**bits, 255 - shift), 0.0, delta * 2.0 ** (-k * step))
    with np.errstate(divide="ignore"):
        k = np.rint(-2 * np.log2(x.astype(np.float64) / delta))
    k = np.maximum(k, 0)
    odd = np.where(k % 2 == 1, np.sqrt(2), 1.0)
    return np.where(k >= 2**bits, 0.0, delta * 2.0 ** -np.ceil(k / 2) * odd)


def softmax(x):
    """In double precision along the last axis."""
    e = np.exp(x.astype(np.float64) - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def probabilities(case, site):
    """`y = softmax(x)` with logarithmic codes times the identity: every element is the paper's, and other readers see Softmax."""
    code = case.decision(site, "product")["left"]["log"]
    x = case.input(batch=64, scale=4.0)
    p = softmax(x)
    step = float(np.float32(code["step"]))
    want = logarithmic(p, code["bits"], step, code["shift"])
    levels = -np.log2(p) / step - code["shift"]
    decided = np.abs(levels - np.floor(levels) - 0.5) > 1e-4  # float32 may go either way at a tie
    assert decided.mean() > 0.99 and len(np.unique(want)) >= min(2 ** code["bits"], 16) // 2
    for plain, other in case.both(x):
        np.testing.assert_allclose(plain[decided], want[decided], rtol=1e-5, atol=1e-12)
        np.testing.assert_allclose(other, p, rtol=1e-5, atol=1e-7)


def product(case, site):
    """Both operands are the network's input through constants; the product of the dequantised values."""
    plan = case.decision(site, "product")
    x = case.input()
    left = dequantised(x, plan["left"])
    right = dequantised(np.swapaxes(x, -1, -2), plan["right"])
    for (output,) in case.both(x):
        np.testing.assert_allclose(output, left @ right, rtol=1e-5, atol=1e-5)


def same(case):
    """The rewritten float model computes what it did."""
    x = case.input()
    before = case.run(case.float, x)
    changed = {t.name: t.SerializeToString() for t in case.float.graph.initializer}
    now = {t.name: t.SerializeToString() for t in case.quantised.graph.initializer}
    assert changed != now, "no parameter was changed"
    for a, b in zip(before, case.run(case.quantised, x), strict=True):
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-5 * max(1.0, np.abs(a).max()))


def ranges(case, *values):
    """Prints the least and greatest element of values inside the float model, as JSON."""
    for value in values:
        case.float.graph.output.append(onnx.helper.make_empty_tensor_value_info(value))
    x = case.input(batch=8)
    outputs = case.run(case.float, x)[-len(values) :]
    print(json.dumps([[float(min(o.min(), 0)), float(max(o.max(), 0))] for o in outputs]))


def near(case, least_db):
    """The quantised model's outputs lie within `least_db` dB of the float model's; a symbolic batch stays so."""
    fixed = case.float.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    for batch in [fixed] if fixed else [1, 3]:
        x = case.input(batch)
        for outputs in case.both(x):
            for before, after in zip(case.run(case.float, x), outputs, strict=True):
                before = before.astype(np.float64)
                db = 10 * np.log10((before**2).sum() / ((before - after) ** 2).sum())
                assert float(least_db) < db < 100, f"{db:.1f} dB"


if __name__ == "__main__":
    check, folder, *arguments = sys.argv[1:]
    options = dict(a.split("=") for a in arguments if "=" in a)
    globals()[check](Case(folder), *[a for a in arguments if "=" not in a], **options)
    print("judged")
