"""Frame rates from the text that stands for a frame's time."""

from __future__ import annotations

import re

__all__ = ["frame_rate", "frame_time"]

_COMMON = (
    24,
    25,
    30,
    48,
    50,
    60,
    72,
    75,
    90,
    96,
    100,
    120,
    144,
    150,
    180,
    200,
    240,
    250,
    300,
    360,
    480,
    500,
    600,
    1000,
)
#: NTSC: 23.976, 29.97, 59.94, ... frames per second
_NTSC = tuple(rate * 1000 / 1001 for rate in (24, 30, 48, 60, 120, 240))
_NEAR = 1e-3  # of the rate: between a rate and NTSC's slower one
_SINGLE = 2e-7  # how far a number may be off that was stored in single precision


def frame_rate(text: str) -> float:
    """Frames per second, from the seconds of a frame as a file prints them, such as "0.0417083" or "8.333e-03".

    Digits end somewhere: 0.0083 stands for all times from 0.00825 to 0.0084, whether it was rounded or cut off. The
    rate is a common one if there is one among these, else a whole number near by, else 1 / time. So 0.041708 is 23.976,
    and 0.041667 is 24. Where a digit or two stand for too much to tell, it is 1 / time.
    """
    seconds = float(text)
    exact = float(f"{1 / seconds:.15g}")  # the inverse of an inverse differs in the last digit
    digit, single = _last_digit(text), _SINGLE * seconds
    low, high = 1 / (seconds + max(digit, single)), 1 / max(seconds - max(digit / 2, single), 1e-300)
    if digit > 0.1 * seconds:
        return exact
    for rates in (_COMMON, _NTSC):
        if near := [rate for rate in rates if low <= rate <= high]:
            return float(min(near, key=lambda rate: abs(rate - exact)))
    for rate in (float(round(exact)), round(exact * 1.001) / 1.001):
        if low <= rate <= high and abs(rate - exact) <= _NEAR * exact:
            return rate
    return exact


def frame_time(fps: float) -> str:
    """Text from which :func:`frame_rate` makes these frames per second again."""
    return f"{1 / fps:.17f}"


def _last_digit(text: str) -> float:
    """What a number would differ by if its last digit did by 1."""
    digits, _, exponent = text.strip().lower().partition("e")
    decimals = len(digits.partition(".")[2])
    trailing = len(re.sub(r"[^0-9]", "", digits))
    return 10.0 ** (int(exponent or 0) - decimals) if trailing else 0.0
