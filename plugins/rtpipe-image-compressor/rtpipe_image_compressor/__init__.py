"""Makes images smaller on their way to the model."""

from rtpipe_image_compressor.config import Config
from rtpipe_image_compressor.plugin import ImageCompressor

__all__ = ["Config", "ImageCompressor"]
