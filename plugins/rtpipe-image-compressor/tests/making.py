"""Pictures to test with, made by Pillow: photographs of nothing, and screens full of text."""

import base64
import io

from PIL import Image, ImageDraw, ImageFont

TEXT = (
    "Your invoice for October is ready. The payment of 128.40 euros failed because the card has expired. "
    "Please update the card under Settings, Billing, or call us between nine and five. Order number 48213."
)
WORDS = TEXT.split()


def photo(width: int, height: int) -> Image.Image:
    """Soft shapes, gradients and the grain of a sensor; never the same twice."""
    channels = []
    for size in (24, 32, 48):
        shapes = Image.effect_noise((max(2, width // size), max(2, height // size)), 90)
        grain = Image.effect_noise((width, height), 14)
        channels.append(Image.blend(shapes.resize((width, height), Image.Resampling.BICUBIC), grain, 0.25))
    return Image.merge("RGB", channels)


def screen(width: int, height: int, text_px: int = 18) -> tuple[Image.Image, list[str]]:
    """A window with a title bar, a side bar and paragraphs; and the words in the paragraphs."""
    image = Image.new("RGB", (width, height), "#f7f7f8")
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, width, text_px * 2), fill="#23395b")
    draw.rectangle((0, text_px * 2, width // 6, max(height, text_px * 2)), fill="#e3e6ea")
    font = ImageFont.load_default(text_px)
    x, y, number, written = width // 6 + text_px, text_px * 3, 0, []
    while y + text_px < height - text_px:
        word = WORDS[number % len(WORDS)]
        number += 1
        length = draw.textlength(word + " ", font=font)
        if x + length > width - text_px:
            x, y = width // 6 + text_px, y + text_px * 3 // 2
            continue
        draw.text((x, y), word, fill="#1b1b1f", font=font)
        written.append(word)
        x += length
    return image, written


def written(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def url(data: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def opened(data_url: str) -> Image.Image:
    """The picture in a data URI, decoded to its end."""
    head, _, text = data_url.partition(";base64,")
    data = base64.b64decode(text, validate=True)
    image = Image.open(io.BytesIO(data))
    image.load()
    assert head == f"data:image/{image.format.lower()}", head
    return image


def item(*image_urls: str, **more: object) -> dict[str, object]:
    """A conversation.item.create with these images."""
    content = [{"type": "input_image", "image_url": each} for each in image_urls]
    return {
        "type": "conversation.item.create",
        "event_id": "e1",
        "item": {"type": "message", "role": "user", "content": content},
        **more,
    }
