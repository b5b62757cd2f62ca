#!/usr/bin/env python3
"""Quantise a ViT with nncf (pip install nncf onnx onnxruntime pillow): its preset for transformers, SmoothQuant included.

    python nncf_static.py MODEL.onnx FOLDER OUT.onnx

The images are those of onnxruntime_static.py, prepared alike.
"""

import sys

import nncf
import onnx
from onnxruntime_static import Reader


def main():
    """Quantise."""
    model, folder, out = sys.argv[1:]
    reader = Reader(folder)
    feeds = list(iter(reader.get_next, None))
    quantised = nncf.quantize(
        onnx.load(model),
        nncf.Dataset(feeds),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(feeds),
    )
    onnx.save(quantised, out)


if __name__ == "__main__":
    main()
