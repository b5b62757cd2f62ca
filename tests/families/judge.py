"""Judges vitq on every member of fixtures/families, with ONNX's checker and ONNX Runtime.

    judge.py VITQ FOLDER [NAME ...]

Prints a table for people on stderr and JSON on stdout: a member → what does not hold (nothing, if all does).
"""

import collections
import concurrent.futures
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime as ort

SAMPLES, UNSEEN = 32, 16
TIES = 2  # samples of a model with TopK that are left out
BARS = {"linear": 20.0, "all": 17.0, "qnn": 15.0}  # dB: the default scope, attention products too, all values in uint16
# What the target qnn refuses, with the words for it.
NOT_FOR_QNN = {
    "hf_bert_fused": "no operator of ONNX's own",
    "hf_clip_vision_fused": "no operator of ONNX's own",
    "hf_rt_detr": "hinders raising the operator set",
    "vit_onnxruntime": "no operator of ONNX's own",
}
KINDS = {"linear": "linears", "attention_value": "softmax_matmul", "query_key": "qk", "patch_embed": "patch_embed"}


def main():
    vitq, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    index = json.loads((folder / "index.json").read_text())["models"]
    names = sys.argv[3:] or list(index)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        results = dict(zip(names, pool.map(lambda n: judged(vitq, folder / f"{n}.onnx", index[n]), names)))
    for name, (figures, complaints) in results.items():
        print(f"{'FAIL' if complaints else 'ok  '} {name:22} {figures}", *complaints, sep="\n       ", file=sys.stderr)
    held = sum(not complaints for _, complaints in results.values())
    print(f"{held} of {len(results)} members hold", file=sys.stderr)
    json.dump({name: complaints for name, (_, complaints) in results.items()}, sys.stdout)


def judged(vitq, model, truth):
    """Figures for the table, and what does not hold."""
    try:
        with tempfile.TemporaryDirectory() as scratch:
            return Judge(vitq, model, truth, pathlib.Path(scratch)).everything()
    except Failure as failure:
        return "", [str(failure)]


class Failure(Exception):
    """Something that makes the other questions pointless."""


class Judge:
    def __init__(self, vitq, model, truth, scratch):
        self.vitq, self.model, self.truth, self.scratch = vitq, model, truth, scratch
        self.complaints = []

    def run(self, *args, codes=(0,)):
        done = subprocess.run([self.vitq, *map(str, args)], capture_output=True, text=True)
        if done.returncode not in codes:
            raise Failure(f"vitq {args[0]}: exit {done.returncode}: {done.stderr.strip()[-700:]}")
        return done

    def everything(self):
        declined = self.counts()
        if "refused" in self.truth["differs"]:
            return self.refused(self.truth["differs"]["refused"][1]), self.complaints
        figures = [f"{self.quantised(scope):.1f} dB {scope}" for scope in ("linear", "all")] + self.for_qnn()
        if declined:
            figures.append(f"declined {dict(declined)}")
        return ", ".join(figures), self.complaints

    def refused(self, words):
        """The model is refused, by these words."""
        calib = self.arrays("calib.npz", SAMPLES, 1)
        done = self.run("quantize", self.model, "--calib", calib, "-o", self.scratch / "out.onnx", codes=(2,))
        if words not in done.stderr:
            self.complaints.append(f"refused without {words!r}: {done.stderr}")
        return f"refused: {words}"

    def counts(self):
        """The sites that were found are those of the architecture, and nothing is missing without a word."""
        found = json.loads(self.run("inspect", self.model, "--json").stdout)["structure"]
        sites = found["sites"] + [site for block in found["blocks"] for site in block["sites"]]
        numbers = collections.Counter({field: 0 for field in KINDS.values()})
        numbers.update(KINDS[site["kind"]] for site in sites)
        numbers["head"] = sum(site["role"] == "head" for site in sites)
        numbers["mlp"] = found["mlps"]
        numbers["norm_linear"] = sum(bool(norm["sites"]) for norm in found["norms"])
        for field, number in numbers.items():
            expected = self.truth["differs"].get(field, [self.truth[field]])[0]
            if number != expected:
                self.complaints.append(f"{field}: {number} found, the architecture has {expected}")
        reasons = " ".join(declined["reason"] for declined in found["declined"])
        for field, (_, reason) in self.truth["differs"].items():
            if field in numbers and reason not in reasons:
                self.complaints.append(f"{field}: no operator is declined with {reason!r}")
        return collections.Counter(declined["op_type"] for declined in found["declined"])

    def arrays(self, file, samples, seed):
        """Random inputs like those of the export, one array an input."""
        made = np.random.default_rng(seed)
        arrays = {}
        for name, spec in self.truth["inputs"].items():
            if spec[0] == "ids":
                arrays[name] = made.integers(1, spec[1], (samples, *spec[2:]))
            elif spec[0] == "ones":
                arrays[name] = np.ones((samples, *spec[1:]), np.int64)
            else:
                arrays[name] = made.standard_normal((samples, *spec)).astype(np.float32)
        np.savez(self.scratch / file, **arrays)
        return self.scratch / file

    def quantised(self, scope):
        """Quantises; gives the least SQNR over outputs, with optimisations on and off, and in tract."""
        out, unseen = self.scratch / f"{scope}.onnx", self.arrays("unseen.npz", UNSEEN, 2)
        self.run("quantize", self.model, "--calib", self.arrays("calib.npz", SAMPLES, 1), "-o", out, "--scope", scope,
                 "--threads", 1, "--quiet")
        onnx.checker.check_model(str(out), full_check=True)
        self.same_borders(out)
        truth, found = (outputs(model, unseen, True) for model in (self.float_model(), out))
        settled, kept = self.settled(unseen, truth, found)
        ratios = {f"{name} in ONNX Runtime": sqnr(truth[name][kept], value[kept]) for name, value in found.items()}
        for name, value in outputs(out, unseen, False).items():
            ratios[f"{name} in ONNX Runtime, unoptimised"] = sqnr(truth[name][kept], value[kept])
        if "tract" in self.truth["differs"]:
            return self.held(scope, ratios)
        report = json.loads(self.run("verify", self.model, out, "--data", settled, "--json", "--threads", 1).stdout)
        for output in report["outputs"]:
            ratios[f"{output['name']} in tract"] = output["sqnr_db"] or 200.0
        return self.held(scope, ratios)

    def for_qnn(self):
        """Quantises every value for the target qnn and runs the result on the CPU, where that is not refused."""
        out, words = self.scratch / "qnn.onnx", NOT_FOR_QNN.get(self.model.stem)
        options = ["--target", "qnn", "--threads", 1, "--quiet", "-o", out]
        done = self.run("quantize", self.model, "--calib", self.scratch / "calib.npz", *options, codes=(0,) if words is None else (2,))
        if words is not None:
            if words not in done.stderr:
                self.complaints.append(f"--target qnn is refused without {words!r}: {done.stderr}")
            return ["refused for qnn"]
        onnx.checker.check_model(str(out), full_check=True)
        self.same_borders(out)
        unseen = self.scratch / "unseen.npz"
        truth, found = (outputs(model, unseen, True) for model in (self.float_model(), out))
        return [f"{self.held('qnn', {name: sqnr(truth[name], value) for name, value in found.items()}):.1f} dB qnn"]

    def settled(self, unseen, truth, found):
        """The samples that are judged, and their places: all, but where queries are picked by TopK the worst are left out, as rounding
        picks another one of two with nearly the same score, and with it whole rows of the outputs."""
        if not any(node.op_type == "TopK" for node in onnx.load(self.model, load_external_data=False).graph.node):
            return unseen, slice(None)
        worst = [min(sqnr(truth[name][i], found[name][i]) for name in truth) for i in range(UNSEEN)]
        kept = np.sort(np.argsort(worst)[TIES:])
        with np.load(unseen) as arrays:
            np.savez(self.scratch / "settled.npz", **{name: array[kept] for name, array in arrays.items()})
        return self.scratch / "settled.npz", kept

    def same_borders(self, out):
        """Inputs and outputs have the names and types that they had."""
        before, after = (
            [(value.name, value.type.tensor_type.elem_type) for value in (*graph.input, *graph.output)]
            for graph in (onnx.load(path, load_external_data=False).graph for path in (self.model, out))
        )
        if before != after:
            self.complaints.append(f"inputs and outputs were {before}, are {after}")

    def float_model(self):
        """A file that ONNX Runtime can run on a CPU."""
        if self.truth["runnable"]:
            return self.model
        model, path = onnx.load(self.model), self.scratch / "float32.onnx"
        in_float32(model)
        onnx.save(model, path)
        return path

    def held(self, scope, ratios):
        """The least of the ratios; those below the bar are complained of."""
        for what, ratio in ratios.items():
            if not ratio >= BARS[scope]:
                self.complaints.append(f"{scope}: {what}: {ratio:.1f} dB")
        return min(ratios.values())


def in_float32(model):
    """Rewrites a bfloat16 model, by means of its own, in float32."""
    narrow, wide = onnx.TensorProto.BFLOAT16, onnx.TensorProto.FLOAT
    for tensor in model.graph.initializer:
        if tensor.data_type == narrow:
            values = onnx.numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == narrow:
                attribute.i = wide
    del model.graph.value_info[:]


def outputs(model, data, optimised):
    """Every output of a model over an array file, in ONNX Runtime."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    inputs = {i.name: i for i in session.get_inputs()}
    with np.load(data) as arrays:
        arrays = {name: fed(arrays[name], inputs[name].type) for name in inputs}
    batches = next((i.shape[0] for i in inputs.values()), None)
    step = batches if isinstance(batches, int) else UNSEEN
    results = [
        session.run(None, {name: array[at : at + step] for name, array in arrays.items()})
        for at in range(0, UNSEEN, step)
    ]
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, (np.concatenate(parts) for parts in zip(*results))))


def fed(array, kind):
    """The array in the type that the model takes."""
    return array.astype(np.float16) if kind == "tensor(float16)" else array


def sqnr(truth, value):
    """Signal to quantisation noise, dB."""
    noise = np.square(truth.astype(np.float64) - value).sum()
    return float(10 * np.log10(np.square(truth.astype(np.float64)).sum() / noise)) if noise else 200.0


if __name__ == "__main__":
    main()
