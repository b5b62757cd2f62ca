"""Judges rewritten float models against the files that they were made from, in ONNX Runtime.

    families.py FOLDER REWRITTEN

Both folders hold NAME.onnx; FOLDER's index.json tells each model's inputs. REWRITTEN/float32 holds those of FOLDER that
had to be widened, which take their files' places. Complains where an output differs by more than 1e-5 of its largest
value.
"""

import json
import pathlib
import sys

import numpy as np
import onnx
import onnxruntime as ort

BAR = 1e-5


def main():
    folder, rewritten = map(pathlib.Path, sys.argv[1:])
    wrong = 0
    for name, entry in json.loads((folder / "index.json").read_text())["models"].items():
        wide = rewritten / "float32" / f"{name}.onnx"
        original = wide if wide.is_file() else folder / f"{name}.onnx"
        onnx.checker.check_model(rewritten / f"{name}.onnx", full_check=True)
        arrays = inputs(entry)
        before, after = (outputs(path, arrays) for path in (original, rewritten / f"{name}.onnx"))
        if before.keys() != after.keys():
            raise SystemExit(f"{name}: the outputs are {[*after]}, not {[*before]}")
        worst = max(float(np.abs(after[o] - v).max() / np.abs(v).max()) for o, v in before.items())
        wrong += not worst <= BAR
        print(f"{'ok  ' if worst <= BAR else 'FAIL'} {name:24} {worst:.1e}")
    if wrong:
        raise SystemExit(f"{wrong} models changed by more than {BAR}")


def inputs(entry):
    """Random inputs like those of the export, one array an input."""
    made = np.random.default_rng(3)
    batch = entry["batch"] if isinstance(entry["batch"], int) else 3
    arrays = {}
    for name, spec in entry["inputs"].items():
        if spec[0] == "ids":
            arrays[name] = made.integers(1, spec[1], (batch, *spec[2:]))
        elif spec[0] == "ones":
            arrays[name] = np.ones((batch, *spec[1:]), np.int64)
        else:
            arrays[name] = made.standard_normal((batch, *spec)).astype(np.float32)
    return arrays


def outputs(path, arrays):
    """Every output by name."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    taken = {i.name for i in session.get_inputs()}
    values = session.run(None, {name: array for name, array in arrays.items() if name in taken})
    return {o.name: v.astype(np.float64) for o, v in zip(session.get_outputs(), values)}


if __name__ == "__main__":
    main()
