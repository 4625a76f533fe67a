"""The networks that start from pixels, and the images that they are trained on.

Everything is imported when first used; reading and warping images needs the `images` extra, videos the `video` extra.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazy

if TYPE_CHECKING:
    from .people import People, Person

__all__ = [
    # people in images
    "People",
    "Person",
]

_HOMES = {
    "people": ("People", "Person"),
}

__getattr__, __dir__ = lazy(__name__, _HOMES)
