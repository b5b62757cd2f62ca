#!/usr/bin/env python3
"""`vitq quantize` against onnxruntime.quantization.quantize_static: time, memory, and speed of what comes out.

    cargo build --release && python benches/quantize.py [--size deit_small] [--images 32] [--rounds 3] [--json OUT]
    cargo build --release && python benches/quantize.py --size vit_base --grow 32 128 1024

Both quantise the same model with the same images at 224x224, each in its own process on the same 2 cores, in
alternating rounds. Verification stands apart (`vitq verify`). Wall time and peak resident memory are those of the
whole process; for ONNX Runtime the time without Python's imports is printed too, and the ratio takes that one.
Then the float file and both results run in ONNX Runtime, interleaved, with 1 and with 2 threads.

`--grow` runs vitq alone with each of these numbers of images: time should grow along a line, memory not at all.
"""

# Only the standard library here: a child's peak memory starts at the size of its parent.
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
CORES = 2
STRIDE = 32  # images whose values ONNX Runtime keeps at a time


def measured(command):
    """Run a command; return its wall seconds, peak memory in MB and standard output."""
    os.sync()  # what the run before wrote is not written back during this one
    with tempfile.TemporaryFile() as out:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=out)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(f"{' '.join(map(str, command))}: exit code {process.returncode}")
        out.seek(0)
        return {"wall_s": wall, "peak_mb": usage.ru_maxrss / 1024, "output": out.read().decode()}


def python(program, *arguments):
    """Run a program of this folder."""
    subprocess.run([sys.executable, HERE / program, *map(str, arguments)], check=True)


def vitq(args, work, images, count):
    """The command that quantises on all `count` images of a folder; none is left to verify on."""
    files = [work / "float.onnx", "--calib", images, "-o", work / "vitq.onnx"]
    return [args.vitq, "quantize", *files, "--samples", str(count), "--preprocess", "inception", "--quiet"]


def grow(args, work):
    """Print seconds and megabytes for each number of images."""
    rows = []
    for count in args.grow:
        images = work / f"images{count}"
        images.mkdir()
        for image in sorted((work / "images").iterdir())[:count]:
            os.link(image, images / image.name)
        run = measured(vitq(args, work, images, count))
        rows.append({"images": count, "wall_s": run["wall_s"], "peak_mb": run["peak_mb"]})
        print(f"{count:5} images {run['wall_s']:8.1f} s {run['wall_s'] / count:8.3f} s an image {run['peak_mb']:8.0f} MB", flush=True)
    return rows


def quantise(args, work):
    """Alternate the two tools; return the median seconds and megabytes of each."""
    model, images = work / "float.onnx", work / "images"
    tools = {
        "vitq": vitq(args, work, images, args.images),
        "onnxruntime": [sys.executable, HERE / "onnxruntime_static.py", model, images, work / "onnxruntime.onnx", "--stride", str(STRIDE)],
    }
    runs = {tool: [] for tool in tools}
    for _ in range(args.rounds):
        for tool, command in tools.items():
            runs[tool].append(measured(command))
    figures = {
        tool: {key: statistics.median(r[key] for r in rows) for key in ("wall_s", "peak_mb")} for tool, rows in runs.items()
    }
    figures["onnxruntime"]["without_imports_s"] = statistics.median(
        float(r["output"].split()[-1]) for r in runs["onnxruntime"]
    )
    figures["times_faster"] = figures["onnxruntime"]["without_imports_s"] / figures["vitq"]["wall_s"]
    figures["memory_share"] = figures["vitq"]["peak_mb"] / figures["onnxruntime"]["peak_mb"]
    return figures


def latency(work):
    """Time the float model and both results; return the rows of latency.py."""
    rows = []
    for threads in (1, CORES):
        out = work / "latency.json"
        models = [work / f"{name}.onnx" for name in ("float", "vitq", "onnxruntime")]
        python("latency.py", *models, "--threads", threads, "--json", out)
        rows += json.loads(out.read_text())
    return rows


def main():
    """Make the inputs, run both parts, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="deit_small", help="a size that models.py knows")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--grow", type=int, nargs="+", metavar="IMAGES")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--vitq", type=pathlib.Path, default=HERE.parent / "target/release/vitq")
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])

    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        python("models.py", args.size, work / "float.onnx")
        if args.grow:
            python("images.py", work / "images", "--count", max(args.grow))
            figures = {"size": args.size, "grow": grow(args, work)}
            if args.json:
                args.json.write_text(json.dumps(figures, indent=1))
            return
        python("images.py", work / "images", "--count", args.images)
        print(f"quantise {args.size} with {args.images} images, {CORES} cores, median of {args.rounds} alternating rounds")
        figures = {"size": args.size, "quantise": quantise(args, work)}
        q = figures["quantise"]
        for tool in ("vitq", "onnxruntime"):
            print(f"{tool:<28} {q[tool]['wall_s']:8.2f} s   {q[tool]['peak_mb']:8.0f} MB")
        print(f"{'  without imports':<28} {q['onnxruntime']['without_imports_s']:8.2f} s")
        print(f"vitq: {q['times_faster']:.2f} times as fast, {100 * q['memory_share']:.0f} % of the memory\n")
        print("one image in ONNX Runtime (times float)")
        figures["latency"] = latency(work)
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
