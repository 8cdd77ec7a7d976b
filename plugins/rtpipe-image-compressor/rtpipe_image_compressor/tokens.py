"""What an image may cost. An estimate: how realtime models count is not published."""

BASE, TILE, TILE_PX = 85, 170, 512
FITS_PX, SHORT_PX = 2048, 768


def estimate(width: int, height: int, detail: str = "auto") -> int:
    """Tokens by the rule that OpenAI has published for GPT-4o.

    With detail ``low`` 85. Otherwise the image is fitted into 2048 by 2048 pixels and its shorter edge to
    768, never enlarged; each tile of 512 by 512 then costs 170, and the whole 85.
    """
    if detail == "low":
        return BASE
    scale = min(1.0, FITS_PX / max(width, height))
    scale = min(scale, SHORT_PX / min(width, height))
    # Through rounding: 768 pixels must not become 768.0000001.
    across, down = (-(-max(1, round(edge * scale)) // TILE_PX) for edge in (width, height))
    return BASE + TILE * across * down
