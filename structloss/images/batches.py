"""The order in which people are trained on: exactly half of each batch from either source, or all of one.

Samplers give `(epoch, index)`, as :class:`~structloss.images.samples.ImageSamples` takes. An order depends on the seed
and the epoch alone, so two runs, and a run and its resumption, see one order. They are `DistributedSampler`, which
Lightning tells the epoch and leaves alone under DDP.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from ..data.loading import EverySample
from ..data.resuming import ResumesWithinEpoch
from ..errors import ArgumentError
from .samples import ImageSamples, collate

__all__ = ["BATCHES", "HalfAndHalf", "ScoresInOrder", "Shuffled", "check_batch", "image_loader"]

BATCHES = ("mixed", "labelled", "all")
"""What batches of training are made of."""


def check_batch(batch_size: int) -> None:
    """Raise :class:`ArgumentError` for a batch that has no halves."""
    if batch_size < 2 or batch_size % 2:
        raise ArgumentError(f"batch_size is {batch_size}, expected an even number, half of it from either source.")


#: Keeps these numbers apart from those of augmentation: a seed is filled up with zeros to four words.
_SHUFFLES = 1


class _Order(DistributedSampler):
    """Positions of an epoch in an order, a share of them to each process, as many to each."""

    def __init__(self, dataset: Dataset[dict[str, Tensor]], seed: int, replicas: int, rank: int) -> None:
        super().__init__(dataset, num_replicas=replicas, rank=rank, shuffle=True, seed=seed)
        self._done: tuple[int, int] | None = None

    def resume(self, epoch: int, samples: int) -> None:
        """Leave out the first `samples` of `epoch`, which were trained on before; later epochs are whole."""
        self.set_epoch(epoch)
        self._done = (epoch, samples)

    def __iter__(self) -> Iterator[Any]:
        skip = self._done[1] if self._done is not None and self._done[0] == self.epoch else 0
        return iter([(self.epoch, int(index)) for index in self.order(self.epoch)[skip:]])

    def order(self, epoch: int) -> np.ndarray:
        """Numbers of this process's samples in an epoch, int64."""
        raise NotImplementedError

    def _stream(self, samples: int, length: int, epoch: int, source: int) -> np.ndarray:
        """`length` numbers below `samples`: one shuffle after the other, each of which has all."""
        rounds = math.ceil(length / samples)
        key = [self.seed, epoch, source]
        shuffles = [np.random.default_rng([*key, number, _SHUFFLES]).permutation(samples) for number in range(rounds)]
        return np.concatenate(shuffles)[:length]


class HalfAndHalf(_Order):
    """Batches whose first half is of the labelled people and whose second half is of the others.

    Source: Dabral et al., ECCV 2018: "in each mini-batch half of the samples" from either set; by a sampler, not by
    chance. An epoch goes through the larger set once; the smaller one comes round again, shuffled anew each time.
    Processes have shares of either set and as many batches each. Whoever loads takes `batch_size` samples in a row.

    Args:
        dataset: of two sources, the labelled people first.
        batch_size: of a process; even.
        seed: of the shuffles.
        replicas: processes.
        rank: which of them this is.

    Raises:
        ArgumentError: an odd batch, or a data set of another number of sources.
    """

    def __init__(self, dataset: ImageSamples, batch_size: int, seed: int, replicas: int = 1, rank: int = 0) -> None:
        check_batch(batch_size)
        if len(dataset.people) != 2:
            raise ArgumentError(f"dataset has {len(dataset.people)} sources of people, expected two: labelled and not.")
        super().__init__(dataset, seed, replicas, rank)
        self._half = batch_size // 2
        self._sizes = [len(part) for part in dataset.people]
        self._batches = math.ceil(max(self._sizes) / (self._half * replicas))

    def __len__(self) -> int:
        return self._batches * 2 * self._half

    def order(self, epoch: int) -> np.ndarray:
        """Numbers of this process's samples in an epoch, int64: half a batch of one source, half of the other."""
        length = self._batches * self._half * self.num_replicas
        starts = (0, self._sizes[0])
        halves = [
            (start + self._stream(size, length, epoch, source))[self.rank :: self.num_replicas]
            for source, (size, start) in enumerate(zip(self._sizes, starts, strict=True))
        ]
        return np.stack([half.reshape(self._batches, self._half) for half in halves], 1).reshape(-1)


class Shuffled(_Order):
    """All people of a data set, shuffled; under DDP the last ones are repeated until the shares are equal.

    Args:
        dataset: of any number of sources; or any other that has a length.
        seed: of the shuffles.
        replicas: processes.
        rank: which of them this is.
    """

    def __init__(self, dataset: Dataset[dict[str, Tensor]], seed: int, replicas: int = 1, rank: int = 0) -> None:
        super().__init__(dataset, seed, replicas, rank)
        self._samples = len(dataset)  # type: ignore[arg-type]

    def __len__(self) -> int:
        return math.ceil(self._samples / self.num_replicas)

    def order(self, epoch: int) -> np.ndarray:
        """Numbers of this process's samples in an epoch, int64."""
        length = len(self) * self.num_replicas
        return self._stream(self._samples, length, epoch, 0)[self.rank :: self.num_replicas]


def image_loader(
    dataset: Dataset[dict[str, Tensor]],
    batch_size: int,
    sampler: DistributedSampler,
    *,
    workers: int = 0,
    **options: Any,
) -> DataLoader[dict[str, Tensor]]:
    """A DataLoader of samples as batches.

    Args:
        dataset: of people, or of pairs of frames.
        batch_size: of a process.
        sampler: gives keys of the data set.
        workers: processes that decode and warp; 0 does it in the training process.
        options: further ones of `torch.utils.data.DataLoader`.
    """
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        collate_fn=collate,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        **options,
    )


class ScoresInOrder(ResumesWithinEpoch):
    """Base of data modules of images, before `LightningDataModule` among the bases: validation, test and prediction go
    through the samples that are scored, in order."""

    val_dataset: Any
    eval_batch_size: int
    num_workers: int

    def val_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Samples that are scored, in order."""
        dataset = self.val_dataset
        sampler = EverySample(dataset, *self._place)
        return image_loader(dataset, self.eval_batch_size, sampler, workers=self.num_workers)

    def test_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """The same."""
        return self.val_dataloader()

    def predict_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """The same."""
        return self.val_dataloader()
