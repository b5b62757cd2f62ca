#!/usr/bin/env python3
"""Quantise a ViT with ONNX Runtime's own tool: static, Percentile, MatMul/Gemm/Conv, uint8 x int8 per channel.

    python onnxruntime_static.py MODEL.onnx FOLDER OUT.onnx [--stride 32]

Prints the seconds that the work took without Python's imports. Images as timm's inception preset at 224:
short side to 248 bicubic, centre crop 224, (x/255 - 0.5) / 0.5. It keeps all values of a stride of images in memory; of
128 at once those of a ViT-B would be more than 20 GB.
"""

import argparse
import pathlib
import time

import numpy as np
import onnxruntime.quantization as q
from PIL import Image


class Reader(q.CalibrationDataReader):
    """One image a batch, decoded when asked for."""

    def __init__(self, folder):
        self.files = sorted(pathlib.Path(folder).iterdir())
        self.set_range(0, len(self.files))

    def __len__(self):
        return len(self.files)

    def set_range(self, start_index, end_index):
        self.left = iter(self.files[start_index:end_index])

    def get_next(self):
        file = next(self.left, None)
        if file is None:
            return None
        x = Image.open(file).convert("RGB").resize((248, 248), Image.BICUBIC).crop((12, 12, 236, 236))
        x = (np.asarray(x, np.float32) / 255 - 0.5) / 0.5
        return {"input": x.transpose(2, 0, 1)[None]}


def main():
    """Quantise and print the seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "folder", "out"):
        parser.add_argument(name)
    parser.add_argument("--stride", type=int)
    args = parser.parse_args()
    start = time.perf_counter()
    q.quantize_static(
        args.model,
        args.out,
        Reader(args.folder),
        op_types_to_quantize=["MatMul", "Gemm", "Conv"],
        calibrate_method=q.CalibrationMethod.Percentile,
        activation_type=q.QuantType.QUInt8,
        weight_type=q.QuantType.QInt8,
        per_channel=True,
        extra_options={"CalibStridedMinMax": args.stride},
    )
    print(f"{time.perf_counter() - start:.3f}")


if __name__ == "__main__":
    main()
