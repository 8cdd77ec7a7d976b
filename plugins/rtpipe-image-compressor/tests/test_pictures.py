"""What is promised of every picture."""

import io
import struct
import warnings
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, features

from rtpipe_image_compressor.config import Config
from rtpipe_image_compressor.pictures import compress, looks_like_screen
from rtpipe_image_compressor.refusal import BadImage
from rtpipe_image_compressor.tokens import estimate

from .making import photo, screen, written

MARK = b"a place that nobody must know"
KINDS = ["PNG", "JPEG", "WEBP", "GIF", *(["AVIF"] if features.check("avif") else [])]
MODES = {
    "PNG": ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"],
    "JPEG": ["L", "RGB", "CMYK"],
    "WEBP": ["RGB", "RGBA"],
    "GIF": ["1", "L", "P"],
    "AVIF": ["RGB", "RGBA"],
}


@st.composite
def pictures(draw):
    kind = draw(st.sampled_from(KINDS))
    size = draw(st.tuples(st.integers(1, 300), st.integers(1, 300)))
    what = draw(st.sampled_from(["noise", "flat", "screen", "photo"]))
    if what == "noise":
        image = Image.effect_noise(size, 80).convert("RGB")
    elif what == "flat":
        image = Image.new("RGB", size, draw(st.sampled_from(["red", "white", "black"])))
    else:
        image = screen(*size, text_px=10)[0] if what == "screen" else photo(*size)
    mode = draw(st.sampled_from(MODES[kind]))
    if mode == "I;16":
        image = image.convert("L").convert("I").point(lambda value: value * 256).convert("I;16")
    else:
        image = image.convert(mode)
    if mode in ("LA", "RGBA"):
        image.putalpha(draw(st.integers(0, 255)))
    options = {"quality": draw(st.integers(1, 95))} if kind in ("JPEG", "WEBP", "AVIF") else {}
    if kind == "JPEG":
        options["progressive"] = draw(st.booleans())
    exif = Image.Exif()
    exif[0x0112] = orientation = draw(st.integers(1, 8))
    exif[0x010E] = MARK.decode()
    if kind in ("PNG", "JPEG", "WEBP"):
        options["exif"] = exif.tobytes()
    else:
        orientation = 1
    turned = size[::-1] if orientation >= 5 else size
    return kind, written(image, kind, **options), turned


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    pictures(),
    st.sampled_from([16, 100, 800]),
    st.sampled_from(["auto", "photo", "screen"]),
    st.integers(1, 95),
)
def test_every_picture_comes_out_whole_upright_within_the_edge_and_no_larger(picture, edge, prefer, quality):
    kind, data, turned = picture
    config = Config(max_edge_px=edge, prefer=prefer, quality=quality)
    small = compress(data, config)
    image = Image.open(io.BytesIO(small.data))
    image.load()
    assert (image.format, image.size) == (small.kind, small.after)
    assert image.format in ("PNG", "JPEG")
    assert max(image.size) <= edge
    assert not image.has_transparency_data
    assert MARK not in small.data
    assert not image.getexif()
    if kind in ("PNG", "JPEG"):
        assert len(small.data) <= len(data)
    wide, high = turned
    ratio = max(wide, high) / max(image.size)
    assert abs(wide / ratio - image.width) <= 1 + image.width / 8 or min(image.size) == 1
    assert abs(high / ratio - image.height) <= 1 + image.height / 8 or min(image.size) == 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_it_stands_as_its_camera_says(orientation):
    upright = Image.new("RGB", (400, 200), "blue")
    upright.paste("red", (0, 0, 200, 100))  # the upper left quarter
    turns = {2: [0], 3: [3], 4: [1], 5: [5], 6: [2], 7: [6], 8: [4]}  # how to undo each, in Pillow's numbers
    stored = upright
    for turn in turns.get(orientation, []):
        stored = stored.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    small = compress(written(stored, "JPEG", quality=90, exif=exif.tobytes()), Config(max_edge_px=100))
    image = Image.open(io.BytesIO(small.data)).convert("RGB")
    assert image.size == (100, 50)
    quarters = [image.getpixel(place)[0] > 128 for place in ((25, 12), (75, 12), (25, 37), (75, 37))]
    assert quarters == [True, False, False, False]


def test_a_file_that_goes_as_it_came_is_stripped_and_its_pixels_are_untouched():
    for kind, options in (("JPEG", {"quality": 20, "comment": MARK}), ("PNG", {})):
        image = Image.effect_noise((120, 90), 80) if kind == "JPEG" else Image.new("RGB", (40, 40), "red")
        exif = Image.Exif()
        exif[0x010E] = MARK.decode()
        data = written(image, kind, exif=exif.tobytes(), icc_profile=MARK, **options)
        data += MARK
        small = compress(data, Config(quality=95, prefer="photo"))
        assert MARK in data
        assert MARK not in small.data
        before, after = Image.open(io.BytesIO(data)), Image.open(io.BytesIO(small.data))
        assert before.convert("RGB").tobytes() == after.convert("RGB").tobytes()


def test_what_is_transparent_is_white():
    data = written(Image.new("RGBA", (50, 50), (0, 0, 0, 0)), "PNG")
    assert Image.open(io.BytesIO(compress(data, Config()).data)).convert("RGB").getpixel((9, 9)) == (255,) * 3


def test_sixteen_bits_are_not_clipped():
    data = written(Image.new("I;16", (300, 300), 0x8000), "PNG")
    assert Image.open(io.BytesIO(compress(data, Config()).data)).convert("L").getpixel((9, 9)) == 128


def test_of_a_film_the_first_frame_goes():
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")]
    data = written(frames[0], "GIF", save_all=True, append_images=frames[1:])
    pixel = Image.open(io.BytesIO(compress(data, Config()).data)).convert("RGB").getpixel((9, 9))
    assert pixel[0] > 250
    assert pixel[2] < 5


def test_screens_stay_sharp_and_photographs_become_small():
    window, picture = written(screen(1280, 800)[0], "PNG"), written(photo(1280, 800), "PNG")
    assert [compress(each, Config()).kind for each in (window, picture)] == ["PNG", "JPEG"]
    assert {compress(each, Config(prefer="screen")).kind for each in (window, picture)} == {"PNG"}
    assert looks_like_screen(Image.open(io.BytesIO(written(screen(1280, 800)[0], "JPEG"))))


# --- what must be refused -----------------------------------------------------------------------------------


def refusal(data, **options):
    with pytest.raises(BadImage) as caught:
        compress(data, Config(**options))
    assert "\n" not in caught.value.message
    return caught.value.code


def png_head(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(8000, 8000), (12_000, 12_000), (2**31 - 1, 2**31 - 1)])
def test_a_bomb_is_refused_before_it_is_unpacked(size):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert refusal(png_head(*size)) == "image_too_many_pixels"


def test_the_limit_of_pixels():
    data = written(Image.new("RGB", (32, 32)), "PNG")
    assert refusal(data, max_pixels=1023) == "image_too_many_pixels"
    assert compress(data, Config(max_pixels=1024)).before == (32, 32)


@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_file_is_refused(kind):
    data = written(photo(200, 200), kind)
    assert refusal(data[: len(data) // 2]) in ("image_unreadable", "image_format_unsupported")


def test_what_is_no_picture_is_refused():
    for data in (b"", b"%PDF-1.7", b"<svg/>", written(photo(9, 9), "BMP"), written(photo(9, 9), "TIFF")):
        assert refusal(data) == "image_format_unsupported"


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(KINDS), st.integers(0, 10_000), st.binary(min_size=1, max_size=20))
def test_damage_anywhere_is_survived(kind, at, damage):
    data = bytearray(SOUND[kind])
    at %= len(data)
    data[at : at + len(damage)] = damage
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about damaged EXIF
        try:
            small = compress(bytes(data), Config())
        except BadImage:
            return
    Image.open(io.BytesIO(small.data)).load()


SOUND = {kind: written(photo(64, 48), kind) for kind in KINDS}


def test_the_estimate_is_the_published_rule():
    assert estimate(4000, 3000, "low") == 85
    assert estimate(1024, 1024) == 85 + 4 * 170  # the examples of OpenAI's page
    assert estimate(2048, 4096) == 85 + 6 * 170
    assert estimate(800, 600) == 85 + 4 * 170
    assert estimate(512, 512) == 85 + 170
