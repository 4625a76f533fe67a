"""Levels of a network, whose activations are kept for the backward pass or computed again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

__all__ = ["RunsLevels"]


class RunsLevels(nn.Module):
    """A network that runs its levels through :meth:`run`, which is all that gradient checkpointing needs.

    Attributes:
        gradient_checkpointing: recompute levels in the backward pass instead of keeping their activations.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gradient_checkpointing = False

    def run(self, block: nn.Module, *inputs: Any) -> Any:
        """Call a level of the network, under gradient checkpointing if that is on.

        Levels with batch normalisation are left alone by checkpointing under `torch.compile`, which cannot express that
        the second pass must not count twice in the running statistics (its own partitioner saves memory anyway).
        """
        if not (self.gradient_checkpointing and torch.is_grad_enabled()):
            return block(*inputs)
        norms = [m for m in block.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
        if not norms:
            return checkpoint(block, *inputs, use_reentrant=False)
        if torch.compiler.is_compiling():
            return block(*inputs)
        return checkpoint(
            block, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), _statistics_untouched(norms))
        )


@contextmanager
def _statistics_untouched(norms: Sequence[nn.modules.batchnorm._BatchNorm]) -> Iterator[None]:
    """Batch statistics without an update of the running ones, while a checkpointed level is computed again.

    A momentum of 0 keeps them to the last bit, and keeps what autograd saves the same as in the first pass.
    """
    kept = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, momentum, count in kept:
            norm.momentum, norm.num_batches_tracked = momentum, count
