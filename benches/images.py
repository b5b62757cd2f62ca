#!/usr/bin/env python3
"""Write N random images of 224x224 that look like images to a network: smooth noise at several scales.

    python images.py FOLDER [--count 32]
"""

import argparse
import pathlib

import numpy as np
from PIL import Image

SIZE, OCTAVES = 224, (3, 7, 14, 28, 56, 112)


def image(random):
    """Return one RGB image: bicubic noise whose strength falls with its frequency, as in photographs."""
    x = np.zeros((SIZE, SIZE, 3), np.float32)
    for cells in OCTAVES:
        for channel in range(3):
            noise = Image.fromarray(random.standard_normal((cells, cells), np.float32))
            x[..., channel] += np.asarray(noise.resize((SIZE, SIZE), Image.BICUBIC)) / cells**0.7
    x = 128 + 150 * x + random.uniform(-30, 30)
    return Image.fromarray(np.clip(x, 0, 255).astype(np.uint8))


def main():
    """Write the images as PNG (which every decoder reads alike)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--count", type=int, default=32)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for i in range(args.count):
        image(random).save(args.folder / f"{i:03}.png")


if __name__ == "__main__":
    main()
