"""Makes folders of images and array files in OUT, and beside each array what NumPy converts it to (NAME.f32)."""
import pathlib, sys
import numpy as np
from PIL import Image

OUT = pathlib.Path(sys.argv[1])
RNG = np.random.default_rng(0)


def image(path, size=(12, 10), mode="RGB", **options):
    path = OUT / path
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, **options)


def folders():
    for path in ["tree/cat/1.png", "tree/cat/0.jpg", "tree/ant/7.JPEG", "tree/bee/2.png", "tree/.hidden/3.png", "tree/bee/.4.png"]:
        image(path)
    (OUT / "tree/ant/notes.txt").write_text("no image")
    (OUT / "tree/readme.md").write_text("no image")
    (OUT / "tree/dog").mkdir()
    (OUT / "classes.txt").write_text("dog\nbee\n\nant\ncat\n")
    (OUT / "few.txt").write_text("dog\nbee\nant\n")
    (OUT / "twice.txt").write_text("cat\nbee\ncat\nant\n")
    for path in ["flat/b.png", "flat/a.bmp", "flat/more/c.png", "flat/more/deep/d.png"]:
        image(path)
    (OUT / "nothing").mkdir()
    (OUT / "nothing/list.txt").write_text("no image")


def arrays():
    ramp = np.arange(3 * 2 * 5).reshape(3, 2, 5)
    for kind in "<f8 >f8 <f4 >f4 <f2 >f2 <i8 >i8 <i4 <i2 >i2 |i1 <u8 <u4 <u2 |u1 |b1".split():
        array = (ramp % 2 == 0) if kind == "|b1" else (ramp / 7 - 1).astype(kind) if "f" in kind else ramp.astype(kind)
        name = kind[1:] + {"<": "le", ">": "be", "|": "one"}[kind[0]]
        np.save(OUT / f"{name}.npy", array)
        array.astype("<f4").tofile(OUT / f"{name}.f32")
    np.save(OUT / "columns.npy", np.asfortranarray(np.ones((3, 2, 5), np.float32)))
    np.save(OUT / "none.npy", np.zeros((0, 2, 5), np.float32))
    np.save(OUT / "flat.npy", np.zeros((3, 10), np.float32))
    np.save(OUT / "text.npy", np.array(["a", "b"]))
    np.save(OUT / "fields.npy", np.zeros(3, [("a", "<f4"), ("b", "<i4")]))
    np.save(OUT / "scalar.npy", np.float32(1))
    np.save(OUT / "nan.npy", np.array([0, 1, np.nan], np.float32).reshape(3, 1, 1))
    np.save(OUT / "large.npy", np.array([0, 1, 2**24 + 1]).reshape(3, 1, 1))
    np.save(OUT / "far.npy", np.array([0, 1, 1e300]).reshape(3, 1, 1))
    both = dict(image=np.float32(ramp), ids=np.int64(ramp[:, 0, :]), spare=np.zeros(9))
    np.savez(OUT / "both.npz", **both)
    np.savez_compressed(OUT / "packed.npz", **both)
    np.savez(OUT / "uneven.npz", image=both["image"], ids=both["ids"][:2])


def malformed():
    image("small.png")
    image("small.jpg", quality=80)
    image("small_progressive.jpg", quality=80, progressive=True)
    image("small.gif"); image("small.bmp"); image("small.tif"); image("small.webp"); image("small.ppm")
    Image.fromarray(np.full((8, 8), 300, np.uint16)).save(OUT / "sixteen.png")


folders()
arrays()
malformed()
