"""From the bytes of a picture to fewer. Runs in a thread; knows nothing of events."""

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image, ImageOps, UnidentifiedImageError, features

from rtpipe_image_compressor import strip
from rtpipe_image_compressor.config import Config
from rtpipe_image_compressor.refusal import BadImage

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", *(("AVIF",) if features.check("avif") else ()))
ACCEPTED = ", ".join(FORMATS[:-1]).replace("WEBP", "WebP") + f" or {FORMATS[-1].replace('WEBP', 'WebP')}"
"""For messages."""

_MODEL_READS = {"PNG": "PNG", "JPEG": "JPEG", "MPO": "JPEG"}
"""Formats that may go to the model, by Pillow's names. (MPO is a JPEG with more pictures behind it.)"""
_ORIENTATION = 0x0112

_LOWER_QUALITIES = (50, 30)
_FEWER_COLOURS = (64, 16, 2)

_PALETTE = 256
_SAMPLE_PX = 160
_SCREEN_COLOURS = 8
_SCREEN_SHARE = 0.7
_PNG_AT_MOST = 2.0
"""How many times the bytes of the JPEG a PNG may have where only a guess says that this is a screen."""


@dataclass(frozen=True, slots=True)
class Picture:
    """What goes to the model in place of a picture; *before* and *after* are (width, height)."""

    data: bytes
    kind: str
    before: tuple[int, int]
    after: tuple[int, int]

    def as_url(self) -> str:
        return f"data:image/{self.kind.lower()};base64,{base64.b64encode(self.data).decode()}"


@dataclass(frozen=True, slots=True)
class _Source:
    data: bytes
    kind: str
    size: tuple[int, int]
    goes_as_it_is: bool
    """Whether the model may get it, once it is stripped."""

    @property
    def is_read_by_model(self) -> bool:
        return self.kind in _MODEL_READS


def compress(data: bytes, config: Config) -> Picture:
    """The same picture, upright, opaque, without metadata, as a PNG or JPEG within the limits of *config*.

    Raises ``BadImage``.
    """
    try:
        source, image = _read(data, config)
        kind, smaller, size = _smaller(source, image, config)
    except BadImage:
        raise
    except Exception as exc:  # noqa: BLE001 — whatever decoders raise over hostile bytes
        raise BadImage(
            "image_unreadable", f"The image is damaged or incomplete ({type(exc).__name__}): send it again."
        ) from None
    return Picture(smaller, kind, source.size, size)


def _read(data: bytes, config: Config) -> tuple[_Source, Image.Image]:
    """What came, and the picture in it: upright, opaque, within ``max_edge_px``, RGB or L."""
    image = _open(data, config.max_pixels)
    size, kind = image.size, image.format or ""
    is_turned = image.getexif().get(_ORIENTATION, 1) != 1
    if kind in ("JPEG", "MPO"):
        # Before it is decoded: the decoder then makes a half, a quarter or an eighth of it.
        scale = min(1.0, config.max_edge_px / max(size))
        image.draft(None, (max(1, int(size[0] * scale)), max(1, int(size[1] * scale))))
        image.thumbnail((config.max_edge_px, config.max_edge_px))
        image = ImageOps.exif_transpose(image)
        was_opaque = True
    else:
        image = ImageOps.exif_transpose(image)
        image, was_opaque = _opaque(image)
        image.thumbnail((config.max_edge_px, config.max_edge_px))
    if image.mode not in ("RGB", "L"):
        image = image.convert("RGB")
    fits = max(size) <= config.max_edge_px
    goes_as_it_is = kind in _MODEL_READS and fits and was_opaque and not is_turned
    return _Source(data, kind, size, goes_as_it_is), image


def _open(data: bytes, max_pixels: int) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_many_pixels(max_pixels) from None
    except UnidentifiedImageError:
        message = f"The image is not readable as {ACCEPTED}: send one of these."
        raise BadImage("image_format_unsupported", message) from None
    if image.width * image.height > max_pixels:
        raise _too_many_pixels(max_pixels)
    return image


def _too_many_pixels(max_pixels: int) -> BadImage:
    message = f"The image has more than {max_pixels} pixels: send a smaller one."
    return BadImage("image_too_many_pixels", message)


def _opaque(image: Image.Image) -> tuple[Image.Image, bool]:
    """On white, and whether it was opaque already."""
    if image.mode.startswith("I"):  # 16 bits; converting it would clip
        return image.convert("I").point(lambda value: value * (1 / 256)).convert("L"), True
    if not image.has_transparency_data:
        return image if image.mode in ("RGB", "L") else image.convert("RGB"), True
    image = image.convert("RGBA")
    alpha = image.getchannel("A")
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=alpha)
    return white, alpha.getextrema()[0] == 255


# --- how it is written --------------------------------------------------------------------------------------


def _smaller(source: _Source, image: Image.Image, config: Config) -> tuple[str, bytes, tuple[int, int]]:
    """(kind, bytes, size): the first way of writing it that is no larger than what came.

    What the model does not read has to be converted. Where no conversion is smaller, it grows.
    """
    preferred = _preferred(source, image, config)
    if len(preferred[1]) <= len(source.data):
        return (*preferred, image.size)
    if source.goes_as_it_is:
        kind = _MODEL_READS[source.kind]
        return kind, (strip.png if kind == "PNG" else strip.jpeg)(source.data), source.size
    for kind, data, size in _ladder(source, image, config.quality):
        if len(data) <= len(source.data):
            return kind, data, size
    return (*preferred, image.size)


def _ladder(
    source: _Source, image: Image.Image, quality: int
) -> Iterator[tuple[str, bytes, tuple[int, int]]]:
    """Ever coarser; with fewer pixels only what the model could have read as it came."""
    while True:
        for lower in _LOWER_QUALITIES:
            if lower < quality:
                yield "JPEG", _jpeg(image, lower), image.size
        for colours in _FEWER_COLOURS:
            yield "PNG", _png(image.quantize(colours)), image.size
        if not source.is_read_by_model or image.size == (1, 1):
            return
        image = image.resize((max(1, image.width * 3 // 4), max(1, image.height * 3 // 4)))


def _preferred(source: _Source, image: Image.Image, config: Config) -> tuple[str, bytes]:
    """(kind, bytes): what the configuration asks for."""
    if config.prefer == "screen":
        return "PNG", _png_of_screen(image)
    jpeg = _jpeg(image, config.quality)
    if config.prefer == "auto" and looks_like_screen(image):
        png = _png_of_screen(image)
        return ("PNG", png) if len(png) <= len(jpeg) * _PNG_AT_MOST else ("JPEG", jpeg)
    if source.kind in ("PNG", "GIF"):
        png = _png(image)
        return ("PNG", png) if len(png) <= len(jpeg) else ("JPEG", jpeg)
    return "JPEG", jpeg


def looks_like_screen(image: Image.Image) -> bool:
    """Whether a few colours cover most of it, as in windows, slides and drawings."""
    # Without blending, so that no colour is made that is not there.
    sample = image.convert("RGB").resize(
        (min(image.width, _SAMPLE_PX), min(image.height, _SAMPLE_PX)), Image.Resampling.NEAREST
    )
    # Neighbouring shades count as one: a JPEG of a screen has no flat areas.
    shades = sample.point(lambda value: (value + 4) & 0xF0 if value < 252 else 0xF0)
    counts = sorted((count for count, _ in shades.getcolors(_SAMPLE_PX * _SAMPLE_PX) or []), reverse=True)
    return sum(counts[:_SCREEN_COLOURS]) >= _SCREEN_SHARE * sample.width * sample.height


def _jpeg(image: Image.Image, quality: int) -> bytes:
    return _written(image, "JPEG", quality=quality, optimize=True)


def _png_of_screen(image: Image.Image) -> bytes:
    """With sharp edges, which make text legible; at most 256 colours, where blending has made more."""
    if image.getcolors(_PALETTE) is None:
        image = image.quantize(_PALETTE, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    return _png(image)


def _png(image: Image.Image) -> bytes:
    return _written(image, "PNG")


def _written(image: Image.Image, kind: str, **options: int) -> bytes:
    # A copy without what Pillow would write beside the picture.
    image = image.copy()
    image.info = {}
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()
