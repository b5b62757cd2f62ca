#!/usr/bin/env python3
"""Print the README's accuracy table again: each form quantised by vitq, judged in ONNX Runtime.

    cargo build --release && python benches/accuracy.py [--digits] [--learned] [--weights] [--plain] [--tiny] [--row "NAME: VITQ ARGUMENTS"]... [--json OUT]

Without --digits: the trained ViT-Tiny and the ImageNet images under ../shared, calibrated on the first 32 calibration
images (or what --samples of a --row says), judged by ../shared/tools/evaluate.py on the 300 test images (--tiny: on tiny_imagenet_val as well).
With --digits: the model and the images of fixtures/digits.
With --learned: the rows are what learning adds at W4A4 and W3A3 (a build with --features learn).
With --weights: the rows are weights alone, with a scale an output channel or a block.
With --plain: ONNX Runtime's optimisations are off, so that products of float activations are float ones.
Columns: top-1 (%), agreement of top-1 with float (%), SQNR of the logits (dB), Linears left float, megabytes, seconds of vitq.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
DIGITS = ROOT / "fixtures/digits"

ROWS = [
    "W8A8, Linears:",
    "W8A8, all: --scope all",
    "W6A6, all: --bits w6a6 --scope all",
    "W4A4, all: --bits w4a4 --scope all",
    "W4A4, all, --effort best: --bits w4a4 --scope all --effort best",
    "W4A4, all, no codebooks: --bits w4a4 --scope all --codes uniform",
    "W4A8, Linears: --bits w4a8",
    "W4A8, Linears, --effort best: --bits w4a8 --effort best",
    "W3A3, all, 8-bit edges: --bits w3a3 --scope all --edge-bits 8",
]

# With --learned: what learning adds to the closed form in equal steps, and what each part of AIQViT is worth: alone beside
# evenly spaced levels, as the paper has it, and beside the codes that vitq takes.
EVEN = "--codes uniform --without logarithm"
LEARNED = [
    "closed form:",
    "reconstruct: --method reconstruct",
    "closed-form branches: --rank auto=20",
    "aiqvit: --method aiqvit --rank auto=20",
    "aiqvit without low-rank: --method aiqvit --without low-rank",
    "aiqvit without curriculum: --method aiqvit --rank auto=20 --without curriculum",
    "train: train --steps 400 --batch 16 --rate 4",
    f"even levels, closed form: {EVEN}",
    f"even levels, low-rank alone: --method aiqvit --rank auto=20 {EVEN} focusing curriculum",
    f"even levels, focusing alone: --method aiqvit {EVEN} low-rank curriculum",
    f"even levels, curriculum alone: --method aiqvit {EVEN} low-rank focusing",
    f"even levels, aiqvit: --method aiqvit --rank auto=20 {EVEN}",
]
LEARNED_FORMS = ["--bits w4a4 --scope all --edge-bits 8", "--bits w3a3 --scope all --edge-bits 8"]

# With --weights.
WEIGHTS = [
    "W4A16, a scale a channel: --bits w4a16",
    "W4A16, the same without codebooks: --bits w4a16 --codes uniform",
    *(f"W4A16, blocks of {block}: --bits w4a16 --block {block}" for block in (128, 64, 32)),
    "W8A16, a scale a channel: --bits w8a16",
    "W8A16, blocks of 32: --bits w8a16 --block 32",
]

# Only for the ViT-Tiny: budgets follow a model's size.
BUDGETS = [
    "Mixed, as large as W4A8: --budget size=4060kB",
    "Mixed, 5 MB: --budget size=5MB",
    "Mixed, drop=5: --budget drop=5",
]


def built_in(args):
    """The built-in rows."""
    if args.learned:
        forms = [(form, form.split()[1], row) for form in LEARNED_FORMS for row in LEARNED]
        return [f"{bits}, {row} {form}" for form, bits, row in forms]
    if args.weights:
        return WEIGHTS
    return ROWS if args.digits else ROWS + BUDGETS


def quantise(args, model, calibration, preprocess, row, out):
    """Run vitq for one row; return its name, file, seconds and the number of Linears left float, `None` where it declines."""
    name, _, options = row.partition(":")
    words = options.split()
    verb = words.pop(0) if words[:1] == ["train"] else "quantize"
    report = out.with_suffix(".json")
    command = [args.vitq, verb, model, "--calib", calibration, "-o", out, "--quiet", "--report", report]
    if "--samples" not in words:
        words += ["--samples", "32"]
    start = time.perf_counter()
    code = subprocess.run([*map(str, command), *preprocess, *words]).returncode
    if code:
        print(f"{name}: vitq ended with exit code {code}, no row", file=sys.stderr)
        return None
    left = json.loads(report.read_text())["summary"]["left_float"]
    seconds = time.perf_counter() - start
    return {"form": name.strip(), "file": out, "seconds": seconds, "left_float": left, "bytes": out.stat().st_size}


def judge(model, files, folder, work, *options):
    """Run the reference judge on a folder; return a row for float and one for each file."""
    out = work / "judged.json"
    command = [sys.executable, SHARED / "tools/evaluate.py", model, *files, "--data", folder, "--json", out, *options]
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
    return json.loads(out.read_text())


def judge_digits(model, files, plain):
    """The same figures for fixtures/digits: grey to RGB, (x/255 - 0.5) / 0.5, no resize."""
    import numpy as np
    import onnxruntime
    from PIL import Image

    images = sorted((DIGITS / "images/test").glob("*/*.png"))
    classes = (DIGITS / "classes.txt").read_text().split()
    truth = np.array([classes.index(image.parent.name) for image in images])
    x = np.stack([np.asarray(Image.open(image).convert("RGB"), np.float32).transpose(2, 0, 1) for image in images])
    rows, reference = [], None
    options = onnxruntime.SessionOptions()
    if plain:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    for file in [model, *files]:
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        (z,) = session.run(None, {"input": (x / 255 - 0.5) / 0.5})
        reference = z if reference is None else reference
        error = float(((reference - z) ** 2).sum())
        rows.append(
            {
                "n": len(truth),
                "top1": 100 * float((z.argmax(1) == truth).mean()),
                "agreement": 100 * float((z.argmax(1) == reference.argmax(1)).mean()),
                "sqnr_db": 10 * float(np.log10((reference**2).sum() / error)) if error else float("inf"),
            }
        )
    return rows


def print_table(made, judged, tiny):
    """Print the figures as a Markdown table, float first."""
    print("| form | top-1 | agreement | dB | Linears left float | MB | s |" + (" top-1 tiny | agreement tiny |" if tiny else ""))
    print("|---|---|---|---|---|---|---|" + ("---|---|" if tiny else ""))
    for i, row in enumerate(judged):
        if i == 0:
            cells = ["float", f"{row['top1']:.2f}", "", "", "", "", ""]
        else:
            m = made[i - 1]
            cells = [m["form"], f"{row['top1']:.2f}", f"{row['agreement']:.1f}", f"{row['sqnr_db']:.1f}"]
            cells += [str(m["left_float"]), f"{m['bytes'] / 1e6:.2f}", f"{m['seconds']:.1f}"]
        if tiny:
            cells += [f"{tiny[i]['top1']:.2f}", f"{tiny[i]['agreement']:.2f}" if i else ""]
        print("| " + " | ".join(cells) + " |")


def main():
    """Quantise each row, judge all, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--digits", action="store_true")
    parser.add_argument("--learned", action="store_true")
    parser.add_argument("--weights", action="store_true")
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--row", action="append", help="'NAME: vitq arguments'; 'NAME: train arguments' trains; replaces the built-in rows")
    parser.add_argument("--vitq", type=pathlib.Path, default=ROOT / "target/release/vitq")
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    if not args.digits and not SHARED.is_dir():
        sys.exit("the trained ViT-Tiny and its images are expected under ../shared; --digits needs nothing outside the repository")

    if args.digits:
        model, calibration = DIGITS / "model.onnx", DIGITS / "images/calib"
        preprocess = ["--preprocess", "inception", "--resize", "32"]
    else:
        model, calibration = SHARED / "data/vit_tiny_imagenet/model.onnx", SHARED / "data/imagenet_sample/calib"
        preprocess = ["--preprocess", "inception"]
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        made = [
            quantise(args, model, calibration, preprocess, row, work / f"row{i}.onnx")
            for i, row in enumerate(args.row or built_in(args))
        ]
        made = [row for row in made if row]
        files, tiny = [m["file"] for m in made], []
        plain = ["--plain"] if args.plain else []
        if args.digits:
            judged = judge_digits(model, files, args.plain)
        else:
            judged = judge(model, files, SHARED / "data/imagenet_sample/test", work, *plain)
            if args.tiny:
                tiny = judge(model, files, SHARED / "data/tiny_imagenet_val", work, "--tiny", *plain)
    print_table(made, judged, tiny)
    if args.json:
        rows = [{"form": "float"}, *({k: v for k, v in m.items() if k != "file"} for m in made)]
        for i, row in enumerate(rows):
            row.update({k: v for k, v in judged[i].items() if k != "model"})
            row.update({"tiny_top1": tiny[i]["top1"]} if tiny else {})
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
