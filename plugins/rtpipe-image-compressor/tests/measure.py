"""Prints what becomes of photographs and screenshots: ``python -m tests.measure`` in this plugin's folder.

The photographs come with scikit-image (``pip install "rtpipe-image-compressor[measure]"``), which only lends
its files; without it there are none. They are small, so one of 12 megapixels is made: soft shapes and the
noise of a sensor. The screens are windows full of text. Legibility is what Tesseract reads: the share of the
words that it finds again, before and after.
"""

import io
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from importlib import metadata

from PIL import Image

from rtpipe_image_compressor.config import Config
from rtpipe_image_compressor.pictures import compress
from rtpipe_image_compressor.tokens import estimate

from .making import photo, screen, written

ENLARGED = 3
"""Tesseract wants letters of some 30 pixels; both pictures are enlarged as much for it."""


REAL = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "motorcycle_left.png",
    "rocket.jpg",
    "retina.jpg",
    "hubble_deep_field.jpg",
)


def real() -> dict[str, bytes]:
    """Photographs that scikit-image brings, where it is installed."""
    try:
        files = metadata.files("scikit-image") or []
    except metadata.PackageNotFoundError:
        sys.stderr.write("no photographs: scikit-image is not installed\n")
        return {}
    found = {file.name: file for file in files if file.parent.as_posix() == "skimage/data"}
    return {name: found[name].read_binary() for name in REAL}


def read_words(data: bytes, like: tuple[int, int]) -> list[str]:
    """What Tesseract reads, once the picture is as large as an enlarged *like*."""
    image = Image.open(io.BytesIO(data)).convert("L")
    image = image.resize((like[0] * ENLARGED // 2, like[1] * ENLARGED // 2), Image.Resampling.BICUBIC)
    done = subprocess.run(  # noqa: S603
        [shutil.which("tesseract") or "tesseract", "-", "-", "--psm", "4"],
        input=written(image, "PNG"),
        capture_output=True,
        env={**os.environ, "OMP_THREAD_LIMIT": "1"},
        check=True,
        timeout=120,
    )
    return done.stdout.decode().split()


def legible(data: bytes, words: list[str], like: tuple[int, int]) -> float:
    """The share of *words* that Tesseract reads."""
    read, wanted = Counter(read_words(data, like)), Counter(words)
    return sum((read & wanted).values()) / len(words)


def row(name: str, data: bytes, words: list[str], config: Config) -> str:
    began = time.thread_time()
    small = compress(data, config)
    milliseconds = (time.thread_time() - began) * 1000
    before, after = estimate(*small.before), estimate(*small.after)
    cells = [
        name,
        f"{len(data) / 1000:.0f} → {len(small.data) / 1000:.0f}",
        f"{small.before[0]} x {small.before[1]} → {small.after[0]} x {small.after[1]} {small.kind}",
        f"{before} → {after} ({1 - after / before:.0%})",
        f"{milliseconds:.0f}",
        "",
    ]
    if words and shutil.which("tesseract"):
        cells[-1] = (
            f"{legible(data, words, small.before):.0%} → {legible(small.data, words, small.before):.0%}"
        )
    return "| " + " | ".join(cells) + " |\n"


def main() -> None:
    sys.stdout.write(
        "| picture | kB | pixels | tokens, estimated | CPU ms | words read |\n|---|---|---|---|---|---|\n"
    )
    for name, data in real().items():
        sys.stdout.write(row(f"photograph, {name}", data, [], Config()))
    camera = written(photo(4032, 3024), "JPEG", quality=92)
    sys.stdout.write(row("made, 12 MP JPEG", camera, [], Config()))
    for width, height, text_px in ((1280, 800, 16), (1920, 1080, 18)):
        image, words = screen(width, height, text_px)
        data = written(image, "PNG")
        for edge in (800, 1280):
            for prefer in ("auto", "photo"):
                name = f"screen, text of {text_px} px, max_edge_px {edge}, {prefer}"
                sys.stdout.write(row(name, data, words, Config(max_edge_px=edge, prefer=prefer)))


if __name__ == "__main__":
    main()
