"""Loaders of windows: whole batches at once, in an order that a resumed run continues."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from .shuffling import Shuffle
from .windows import PoseWindows

__all__ = ["EpochSampler", "EverySample", "Samples", "window_loader", "windows_of"]


class Samples(Protocol):
    """A data set that makes a whole batch at once, as :class:`PoseWindows` does."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Tensor]: ...

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """The samples of some indices, stacked."""
        ...


class EpochSampler(DistributedSampler):
    """A shuffle that depends on (seed, epoch) only, so that two runs, and a run and its resumption, see one order.

    A data set that draws its samples anew in every epoch (its attribute `draws` is true) gets (epoch, index).

    Lightning calls `set_epoch`, and leaves a `DistributedSampler` alone under DDP, where every process takes its share
    (the first samples are repeated until the shares are equal). The order is that of
    :class:`~structloss.data.shuffling.Shuffle`, which is never in memory as a whole where there are many samples.
    """

    def __init__(self, dataset: Dataset[Any], seed: int, replicas: int = 1, rank: int = 0) -> None:
        # The base class seeds with seed + epoch; the factor keeps seeds from sharing orders one epoch apart.
        super().__init__(dataset, num_replicas=replicas, rank=rank, shuffle=True, seed=seed * 1_000_003)
        self._done: tuple[int, int] | None = None

    def resume(self, epoch: int, samples: int) -> None:
        """Leave out the first `samples` of `epoch`, which were trained on before; later epochs are whole."""
        self.set_epoch(epoch)
        self._done = (epoch, samples)

    def __iter__(self) -> Iterator[Any]:
        done = self._done[1] if self._done is not None and self._done[0] == self.epoch else 0
        order = Shuffle(len(self.dataset), self.seed + self.epoch)  # type: ignore[arg-type]  # ours have a length
        share = range(self.rank, self.total_size, self.num_replicas)
        indices, epoch = order.walk(share[done:]), self.epoch
        if not getattr(self.dataset, "draws", False):
            return indices
        return ((epoch, index) for index in indices)  # processes that load would not hear of the epoch


class EverySample(DistributedSampler):
    """A process's share of the samples, in order, none of them twice: what scores are summed over."""

    def __init__(self, dataset: Dataset[Any], replicas: int = 1, rank: int = 0) -> None:
        super().__init__(dataset, num_replicas=replicas, rank=rank, shuffle=False)
        self._samples = len(dataset)  # type: ignore[arg-type]  # every one of ours has a length

    def __iter__(self) -> Iterator[int]:
        return iter(self._share)

    def __len__(self) -> int:
        return len(self._share)

    @property
    def _share(self) -> range:
        return range(self.rank, self._samples, self.num_replicas)


class _Batches(Dataset[dict[str, Tensor]]):
    """Lets a DataLoader fetch the samples of a batch in one go."""

    def __init__(self, windows: Samples) -> None:
        self.windows = windows

    def __len__(self) -> int:
        return len(self.windows)

    def __getitems__(self, indices: list[int]) -> dict[str, Tensor]:
        return self.windows.batch(indices)


@dataclass(frozen=True)
class Packed:
    """A batch in one buffer. A loader process hands over every tensor through a file descriptor of its own, and
    receiving a dozen of them takes longer than making a small batch.

    Attributes:
        buffer: the tensors' bytes.
        layout: key -> first byte, end, dtype and shape.
    """

    buffer: Tensor
    layout: dict[str, tuple[int, int, torch.dtype, torch.Size]]

    @classmethod
    def of(cls, batch: dict[str, Tensor]) -> Packed:
        layout, pieces, end = {}, [], 0
        # Largest elements first: then all lie at multiples of their size.
        for key, value in sorted(batch.items(), key=lambda item: -item[1].element_size()):
            pieces.append(value.reshape(-1).view(torch.uint8))
            start, end = end, end + len(pieces[-1])
            layout[key] = start, end, value.dtype, value.shape
        return cls(torch.cat(pieces), {key: layout[key] for key in batch})

    def batch(self) -> dict[str, Tensor]:
        """The batch that was packed, in views of the buffer."""
        return {
            key: self.buffer[start:end].view(dtype).view(shape)
            for key, (start, end, dtype, shape) in self.layout.items()
        }

    def pin_memory(self) -> Packed:
        """Called by the DataLoader."""
        return replace(self, buffer=self.buffer.pin_memory())


class _PackedLoader(DataLoader[dict[str, Tensor]]):
    """Unpacks what its processes packed."""

    def __iter__(self) -> Iterator[dict[str, Tensor]]:  # type: ignore[override]  # torch's names its own iterator
        return map(Packed.batch, super().__iter__())


def _as_it_is(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return batch


def window_loader(
    windows: Samples, batch_size: int, sampler: DistributedSampler, *, workers: int = 0, **options: Any
) -> DataLoader[dict[str, Tensor]]:
    """A DataLoader whose batches :meth:`Samples.batch` makes: one gather per key, rather than sample by sample."""
    collate: Callable[[Any], Any] = Packed.of if workers else _as_it_is
    return (_PackedLoader if workers else DataLoader)(
        _Batches(windows),
        batch_size=batch_size,
        sampler=sampler,
        collate_fn=collate,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        **options,
    )


def windows_of(batches: object) -> PoseWindows | None:
    """The windows that a loader of :func:`window_loader` gives; None of any other."""
    dataset = getattr(batches, "dataset", None)
    windows = dataset.windows if isinstance(dataset, _Batches) else None
    return windows if isinstance(windows, PoseWindows) else None
