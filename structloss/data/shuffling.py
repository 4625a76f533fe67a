"""Shuffles: the order of an epoch, as many of it at a time as are asked for.

Up to :data:`LISTED` samples the order is `torch.randperm`'s. Beyond, a list of all samples would take gigabytes and
seconds in every epoch, so the order is a permutation that is computed for each place by itself: a Feistel network of
:data:`_ROUNDS` rounds on the numbers of as many bits as the samples need, walked in cycles until the outcome is one of
them (both constructions: Black and Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA 2002). Its round function
is ours: addition of the round's key, multiplication and folding of a 64-bit word. It is no cipher, and need not be.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

__all__ = ["LISTED", "Shuffle"]

LISTED = 2**22
"""Samples that `torch.randperm` shuffles, at most: 32 MB. Human3.6M at every frame, mirrored, has 3.1 million."""
_ROUNDS = 8
_BLOCK = 2**14  # places at a time
_ODD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio


class Shuffle:
    """A random order of `size` samples.

    Args:
        size: how many.
        seed: of torch's generator; the same size and seed give the same order.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        generator = torch.Generator()
        generator.manual_seed(seed)
        self._order: np.ndarray | None = None
        if size <= LISTED:
            self._order = torch.randperm(size, generator=generator).numpy()
        else:
            self._keys = torch.randint(2**62, (_ROUNDS,), generator=generator).numpy().astype(np.uint64)
            self._bits = (size - 1).bit_length()

    def at(self, places: np.ndarray) -> np.ndarray:
        """The samples, int64 `[P]`, at some places, int64 `[P]` from 0 to `size` - 1."""
        if self._order is not None:
            return self._order[places]
        found = self._permuted(places.astype(np.uint64))
        while (outside := found >= self.size).any():
            found[outside] = self._permuted(found[outside])
        return found.astype(np.int64)

    def walk(self, places: range) -> Iterator[int]:
        """The samples at some places one by one; a place beyond the last one is again the first, and so on."""
        for first in range(0, len(places), _BLOCK):
            block = places[first : first + _BLOCK]
            yield from self.at(np.arange(block.start, block.stop, block.step) % self.size).tolist()

    def _permuted(self, numbers: np.ndarray) -> np.ndarray:
        """A permutation of the numbers of `_bits` bits: the two halves take turns in changing each other."""
        low = self._bits // 2
        widths = low, self._bits - low  # of the half that is changed, in even and odd rounds
        right, left = numbers & _mask(low), numbers >> np.uint64(low)
        for number, key in enumerate(self._keys):
            mixed = (left + key) * _ODD
            mixed = (mixed ^ (mixed >> np.uint64(29))) * _ODD
            changed = (right ^ (mixed >> np.uint64(32))) & _mask(widths[number % 2])
            right, left = left, changed
        # an even number of rounds: each half has its width again
        return (left << np.uint64(low)) | right


def _mask(bits: int) -> np.uint64:
    return np.uint64((1 << bits) - 1)
