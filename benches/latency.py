#!/usr/bin/env python3
"""Compare the speed of models in ONNX Runtime on one image, in interleaved rounds.

    python latency.py FLOAT.onnx OTHER.onnx ... [--threads 1] [--rounds 15] [--json OUT]

Prints for each model the median milliseconds and the median over the rounds of float time / its time.
"""

import argparse
import json
import pathlib
import statistics
import time

import numpy as np
import onnxruntime as ort

WARM_UP, RUNS = 5, 5


def session(model, threads):
    """Open a model; its idle workers must not spin while another model is timed."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def milliseconds(model, feed):
    """Return the median time of a few runs."""
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        model.run(None, feed)
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def main():
    """Time the models."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()

    sessions = [session(m, args.threads) for m in args.models]
    shape = [d if isinstance(d, int) else 1 for d in sessions[0].get_inputs()[0].shape]
    feed = {sessions[0].get_inputs()[0].name: np.random.default_rng(0).standard_normal(shape, np.float32)}
    for s in sessions:
        for _ in range(WARM_UP):
            s.run(None, feed)
    rounds = [[milliseconds(s, feed) for s in sessions] for _ in range(args.rounds)]

    rows = []
    for i, model in enumerate(args.models):
        row = {
            "model": pathlib.Path(model).name,
            "threads": args.threads,
            "ms": statistics.median(r[i] for r in rounds),
            "times_faster": statistics.median(r[0] / r[i] for r in rounds),
        }
        rows.append(row)
        print(f"{row['model']:<28} {args.threads} thread(s)  {row['ms']:8.2f} ms  {row['times_faster']:5.2f}x", flush=True)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
