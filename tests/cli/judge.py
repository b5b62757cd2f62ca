"""Runs a float and a quantised digits model in ONNX Runtime and prints as JSON how they compare.

judge.py FLOAT QUANTISED IMAGES: the images lie in folders named by their digit and are prepared here, by Pillow and NumPy.
"""

import json
import pathlib
import sys

import numpy as np
import onnx
import onnxruntime
from PIL import Image


def logits(model, images):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    batches = [images[i : i + 7] for i in range(0, len(images), 7)]
    return np.concatenate([session.run(None, {"input": batch})[0] for batch in batches])


def main():
    reference, quantised, folder = sys.argv[1:]
    files = sorted(pathlib.Path(folder).glob("*/*.png"))
    labels = np.array([int(file.parent.name) for file in files])
    pixels = np.stack([np.asarray(Image.open(file).convert("RGB"), np.float32) for file in files])
    images = ((pixels / 255 - 0.5) / 0.5).transpose(0, 3, 1, 2).astype(np.float32)
    before, after = logits(reference, images), logits(quantised, images)
    onnx.checker.check_model(quantised, full_check=True)
    graphs = [onnx.load(path).graph for path in (reference, quantised)]
    noise = ((before - after).astype(np.float64) ** 2).sum()
    print(
        json.dumps(
            {
                "samples": len(files),
                "float_top1": 100 * float((before.argmax(1) == labels).mean()),
                "top1": 100 * float((after.argmax(1) == labels).mean()),
                "agreement": 100 * float((before.argmax(1) == after.argmax(1)).mean()),
                "sqnr_db": float(10 * np.log10((before.astype(np.float64) ** 2).sum() / noise)),
                "same_inputs": list(graphs[0].input) == list(graphs[1].input),
                "same_outputs": list(graphs[0].output) == list(graphs[1].output),
                "opset": onnx.load(quantised).opset_import[0].version,
                "attentions": sum(node.op_type == "Attention" for node in graphs[1].node),
                "int8_weights": sum(t.data_type == onnx.TensorProto.INT8 and len(t.dims) == 2 for t in graphs[1].initializer),
            }
        )
    )


main()
