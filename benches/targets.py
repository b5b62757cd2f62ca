#!/usr/bin/env python3
"""How fast quantised models are in ONNX Runtime and tract, next to other tools' models of the same float model.

    cargo build --release --features onnxruntime
    python -m venv .venv-nncf && .venv-nncf/bin/pip install nncf onnx onnxruntime pillow
    python benches/targets.py [--sizes deit_small …] [--nncf .venv-nncf/bin/python] [--rounds 9] [--calibration] [--json OUT]

The models are built here (models.py), quantised by vitq (--target onnxruntime, portable for QDQ, and tract), onnxruntime.quantization and, where
an interpreter that has it is named, nncf; then `vitq bench` times them in alternating rounds, with 1 and 2 threads and batches
of 1 and 8. Figures are float time / quantised time. With --calibration it times how ViT-B is quantised, next to Percentile and with more and more
images (quantize.py). Last it prints which bars are missed.
"""

# Only the standard library here: the work is done by other programs.
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import quantize

HERE = pathlib.Path(__file__).resolve().parent
BARS = {"deit_tiny": 1.85, "deit_small": 2.4, "vit_base": 2.85, "swin_tiny": 2.15}  # 1 thread, batch 1
TRACT_SIZES, TRACT_BAR = ("deit_tiny", "deit_small"), 1.6


def run(*command):
    """Run a program, quietly."""
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def library():
    """Path of ONNX Runtime's shared library, from the Python package."""
    import importlib.util

    package = pathlib.Path(importlib.util.find_spec("onnxruntime").origin).parent
    return str(next((package / "capi").glob("libonnxruntime.*")))


def quantise(args, size, work):
    """Build a model and let each tool quantise it; return the files by tool, the float one first."""
    images, files = work / "images", {tool: work / f"{tool}.onnx" for tool in ("float", "vitq", "qdq", "tract", "onnxruntime")}
    run(sys.executable, HERE / "models.py", size, files["float"])
    run(sys.executable, HERE / "images.py", images, "--count", args.images)
    calibrated = ["--calib", images, "--preprocess", "inception", "--quiet"]
    for tool, target in (("vitq", "onnxruntime"), ("qdq", "portable"), ("tract", "tract")):
        run(args.vitq, "quantize", files["float"], *calibrated, "--target", target, "-o", files[tool])
    run(sys.executable, HERE / "onnxruntime_static.py", files["float"], images, files["onnxruntime"])
    if args.nncf:
        files["nncf"] = work / "nncf.onnx"
        run(args.nncf, HERE / "nncf_static.py", files["float"], images, files["nncf"])
    return files


def bench(args, files, *options):
    """What `vitq bench` says of the files: times as fast as the first of them, by tool."""
    command = [args.vitq, "bench", *files.values(), "--rounds", args.rounds, "--json", *options]
    told = subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True).stdout
    models = json.loads(told)["models"]
    return {tool: model["times_as_fast"]["median"] for tool, model in zip(files, models, strict=True)}


def line(size, runtime, threads, batch, speeds):
    """Print one row."""
    told = "  ".join(f"{tool} {speed:.2f}" for tool, speed in speeds.items() if tool != "float")
    print(f"{size:<11} {runtime:<12} {threads} thread(s)  batch {batch}  {told}", flush=True)


def in_onnx_runtime(args, size, files):
    """Time in ONNX Runtime; yield rows."""
    files = {tool: file for tool, file in files.items() if tool not in ("qdq", "tract")}
    for threads in (1, 2):
        for batch in (1, 8):
            speeds = bench(args, files, "--runtime", "onnxruntime", "--threads", threads, "--batch", batch)
            line(size, "onnxruntime", threads, batch, speeds)
            others = [speed for tool, speed in speeds.items() if tool not in ("float", "vitq")]
            bar = max([BARS[size] if (threads, batch) == (1, 1) else 1.0, *others])
            yield {"size": size, "runtime": "onnxruntime", "threads": threads, "batch": batch, "speeds": speeds, "bar": {"vitq": bar}}


def in_tract(args, size, files):
    """Time in tract: with vitq-tract the MatMulInteger and the QDQ form, without it what is made for it; yield rows."""
    for runtime, tools, bar in (("vitq-tract", ("vitq", "qdq"), TRACT_BAR), ("stock tract", ("tract",), 1.0)):
        some = {tool: files[tool] for tool in ("float", *tools)}
        speeds = bench(args, some, "--runtime", "tract", *(["--stock"] if runtime == "stock tract" else []))
        line(size, runtime, 1, 1, speeds)
        yield {"size": size, "runtime": runtime, "threads": 1, "batch": 1, "speeds": speeds, "bar": dict.fromkeys(tools, bar)}


CALIBRATED, IMAGES, GROWTH = "vit_base", 128, (32, 128, 1024)
FASTER, MEMORY, FLAT = 3.0, 0.2, 1.1  # times as fast as Percentile, share of its memory, memory of most images over that of few


def calibration(args):
    """Time `vitq quantize` itself; yield sentences about bars that are missed."""
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        quantize.python("models.py", CALIBRATED, work / "float.onnx")
        quantize.python("images.py", work / "images", "--count", IMAGES)
        ours = argparse.Namespace(vitq=args.vitq, images=IMAGES, rounds=args.calibration, grow=GROWTH)
        figures = quantize.quantise(ours, work)
        faster, share = figures["times_faster"], figures["memory_share"]
        print(f"{CALIBRATED} with {IMAGES} images: {faster:.2f} times as fast as Percentile, {100 * share:.0f} % of its memory", flush=True)
        if faster < FASTER:
            yield f"vitq quantize is {faster:.2f} times as fast as Percentile, the bar is {FASTER}"
        if share > MEMORY:
            yield f"vitq quantize takes {100 * share:.0f} % of Percentile's memory, the bar is {100 * MEMORY:.0f} %"
        quantize.python("images.py", work / "images", "--count", max(GROWTH))
        rows = quantize.grow(ours, work)
        if rows[-1]["peak_mb"] > FLAT * rows[0]["peak_mb"]:
            yield f"{GROWTH[-1]} images take {rows[-1]['peak_mb']:.0f} MB, {GROWTH[0]} take {rows[0]['peak_mb']:.0f}"


def missed(rows):
    """Sentences about bars that are missed."""
    for row in rows:
        for tool, bar in row["bar"].items():
            if row["speeds"][tool] < bar:
                where = f"{row['size']} in {row['runtime']}, {row['threads']} thread(s), batch {row['batch']}"
                yield f"{where}: {tool} {row['speeds'][tool]:.2f}, the bar is {bar:.2f}"


def main():
    """Quantise, time, compare with the bars."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=BARS, default=list(BARS))
    parser.add_argument("--nncf", type=pathlib.Path, help="a Python interpreter that has nncf")
    parser.add_argument("--images", type=int, default=8, help="for calibration; speed does not depend on them")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--vitq", type=pathlib.Path, default=HERE.parent / "target/release/vitq")
    parser.add_argument("--calibration", type=int, nargs="?", const=3, default=0, metavar="ROUNDS", help="time vitq quantize too")
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    os.environ.setdefault("ORT_DYLIB_PATH", library())

    rows = []
    for size in args.sizes:
        with tempfile.TemporaryDirectory() as folder:
            files = quantise(args, size, pathlib.Path(folder))
            rows += in_onnx_runtime(args, size, files)
            if size in TRACT_SIZES:
                rows += in_tract(args, size, files)
    misses = [*missed(rows), *(calibration(args) if args.calibration else [])]
    print("\n".join(["", *misses] if misses else ["", "every bar is met"]))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
