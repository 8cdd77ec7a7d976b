"""Somebody else can still read it: Tesseract."""

import shutil

import pytest

from rtpipe_image_compressor.config import Config
from rtpipe_image_compressor.pictures import compress

from .making import screen, written
from .measure import legible


@pytest.mark.skipif(shutil.which("tesseract") is None, reason="apt-get install tesseract-ocr")
def test_the_words_of_a_screenshot_stay_legible():
    image, words = screen(1000, 500, text_px=18)
    data = written(image, "PNG")
    small = compress(data, Config())
    assert max(small.after) == 800
    before = legible(data, words, small.before)
    assert before > 0.9
    assert legible(small.data, words, small.before) >= before - 0.05
