"""Makes images, and what Pillow and NumPy turn them into: OUT/NAME.<ext>, OUT/NAME.f32 and OUT/cases.json.

Resize and crop are written after torchvision.transforms (Resize, CenterCrop) and timm's ResizeKeepRatio, on Pillow.
"""
import json, pathlib, struct, sys, zlib
import numpy as np
from PIL import Image

OUT = pathlib.Path(sys.argv[1])
RNG = np.random.default_rng(0)
FILTERS = dict(bicubic=Image.BICUBIC, bilinear=Image.BILINEAR, nearest=Image.NEAREST, lanczos=Image.LANCZOS)
HALF = dict(mean=[0.5, 0.5, 0.5], std=[0.5, 0.5, 0.5])
IMAGENET = dict(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
CASES = []


def picture(height, width):
    """Ramps, rings, edges and noise: every slope that a filter meets."""
    y, x = np.mgrid[0:height, 0:width]
    rings = 127 * np.sin(((x - width / 3) ** 2 + (y - height / 2) ** 2) / (height + width)) + 128
    channels = [x * 255 / width, rings, ((x // 7 + y // 5) % 2) * 255]
    noisy = np.stack(channels, -1) + RNG.normal(0, 12, (height, width, 3))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def resized(im, resize, filter):
    if resize is None:
        return im
    (kind, value), = resize.items()
    w, h = im.size
    if kind == "exact":
        size = (value["width"], value["height"])
    elif kind == "short_side":
        size = (value, int(value * h / w)) if w <= h else (int(value * w / h), value)
    else:
        ratio = min(h / value["height"], w / value["width"])
        size = (round(w / ratio), round(h / ratio))
    return im.resize(size, filter)


def cropped(im, crop):
    if crop is None:
        return im
    height, width = crop["height"], crop["width"]
    if width > im.width or height > im.height:
        left, top = max(width - im.width, 0) // 2, max(height - im.height, 0) // 2
        padded = Image.new(im.mode, (max(width, im.width), max(height, im.height)))
        padded.paste(im, (left, top))
        im = padded
    top, left = int(round((im.height - height) / 2.0)), int(round((im.width - width) / 2.0))
    return im.crop((left, top, left + width, top + height))


def case(file, *, mode="RGB", resize=None, crop=None, interpolation="bicubic", levels=1.0, mean_levels=0.011, norm=HALF):
    """`levels`, `mean_levels`: the largest and the mean difference that a reader may show, in steps of 1/255."""
    im = cropped(resized(Image.open(OUT / file).convert(mode), resize, FILTERS[interpolation]), crop)
    x = np.asarray(im, np.float32).reshape(im.height, im.width, -1) / 255.0
    mean, std = (np.asarray(norm[k], np.float32) for k in ("mean", "std"))
    if mode == "L":
        mean, std = (np.float32(np.mean(norm[k])) for k in ("mean", "std"))
    x = ((x - mean) / std).transpose(2, 0, 1)
    expected = f"{len(CASES)}.f32"
    x.astype("<f4").tofile(OUT / expected)
    contract = dict(resize=resize, crop=crop, interpolation=interpolation, **norm)
    CASES.append(dict(file=file, expected=expected, dims=[1, *x.shape], contract=contract, levels=levels, mean_levels=mean_levels))


def size(height, width):
    return dict(height=height, width=width)


def resizing():
    for height, width in [(375, 500), (500, 375), (1500, 2001), (64, 64), (37, 300), (224, 224), (101, 99)]:
        file = f"picture{height}x{width}.png"
        picture(height, width).save(OUT / file)
        for interpolation in FILTERS:
            case(file, resize=dict(short_side=248), crop=size(224, 224), interpolation=interpolation)
            case(file, resize=dict(exact=size(32, 48)), interpolation=interpolation, norm=IMAGENET)
        case(file, resize=dict(exact=size(224, 224)), mode="L", norm=IMAGENET)
        case(file, resize=dict(cover=size(128, 256)), crop=size(112, 224))
        case(file, crop=size(225, 224), levels=0.001, mean_levels=0.001)
        case(file, levels=0.001, mean_levels=0.001)


def png16(pixels):
    """A PNG of three channels of 16 bits, which Pillow reads and does not write."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def formats():
    im = picture(91, 130)
    grey, alpha = im.convert("L"), Image.fromarray(np.tile(np.arange(130, dtype=np.uint8), (91, 1)))
    rgba = im.copy()
    rgba.putalpha(alpha)
    palette = im.quantize(32)
    files = {
        "rgb.bmp": im, "rgb.tif": im, "rgb.ppm": im, "rgb.webp": im, "grey.png": grey, "grey.pgm": grey, "rgba.png": rgba,
        "la.png": Image.merge("LA", (grey, alpha)), "bit.png": im.convert("1"), "palette.png": palette, "palette.gif": palette,
        "cmyk.tif": im.convert("CMYK"), "sixteen_grey.png": Image.fromarray(np.asarray(grey).astype(np.uint16)),
    }
    for file, image in files.items():
        image.save(OUT / file, **(dict(lossless=True) if file.endswith("webp") else {}))
        case(file, levels=0.001, mean_levels=0.001)
    im.save(OUT / "png_named.jpg", "PNG")
    case("png_named.jpg", levels=0.001, mean_levels=0.001)
    case("palette.png", mode="L", levels=1.001)
    palette.save(OUT / "transparent.png", transparency=3)
    case("transparent.png", levels=0.001, mean_levels=0.001)
    sixteen = np.asarray(im).astype(int) * 257 + RNG.integers(-99, 99, (91, 130, 3))
    (OUT / "sixteen.png").write_bytes(png16(np.clip(sixteen, 0, 65535)))
    case("sixteen.png", levels=0.001, mean_levels=0.001)


def jpegs():
    """Decoders may differ by rounding in the inverse DCT, the colour transform and the chroma upsampling."""
    im = picture(91, 130)
    turned = Image.Exif()
    turned[0x112] = 6
    saves = {
        "444.jpg": (im, dict(subsampling=0)), "422.jpg": (im, dict(subsampling=1)), "420.jpg": (im, dict(subsampling=2)),
        "progressive.jpg": (im, dict(progressive=True)), "turned.jpg": (im, dict(exif=turned)),
        "grey.jpg": (im.convert("L"), {}), "cmyk.jpg": (im.convert("CMYK"), dict(quality=95)),
    }
    for file, (image, options) in saves.items():
        image.save(OUT / file, **options)
        case(file, levels=5.0, mean_levels=0.2)
    (OUT / "trailing.jpg").write_bytes((OUT / "444.jpg").read_bytes() + b"junk" * 9)
    case("trailing.jpg", levels=5.0, mean_levels=0.2)


resizing()
formats()
jpegs()
(OUT / "cases.json").write_text(json.dumps(CASES))
