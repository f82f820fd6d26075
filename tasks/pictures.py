"""Pictures small enough to be part of a page."""

import base64
import io
from pathlib import Path

from PIL import Image

# JPEG qualities to try, best first, then smaller and smaller pictures.
_QUALITIES = (85, 75, 65)


def data_uri(content: bytes, media_type: str) -> str:
    """Bytes as a ``data:`` URI."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def jpeg_data_uri(path: Path, *, widest: int, largest: int) -> str:
    """A picture as a JPEG ``data:`` URI.

    Args:
        path: the picture.
        widest: most pixels a row.
        largest: most bytes of the URI.
    """
    with Image.open(path) as picture:
        shrunk = picture.convert("RGB")
    width = min(widest, shrunk.width)
    while True:
        height = max(1, round(shrunk.height * width / shrunk.width))
        scaled = shrunk if width == shrunk.width else shrunk.resize((width, height), Image.Resampling.LANCZOS)
        for quality in _QUALITIES:
            buffer = io.BytesIO()
            scaled.save(buffer, format="JPEG", quality=quality, optimize=True)
            uri = data_uri(buffer.getvalue(), "image/jpeg")
            if len(uri) <= largest or width <= 64:
                return uri
        width = max(64, width * 3 // 4)
