"""Score a trained module on held-out windows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from ..data.loading import windows_of
from ..progress import track
from .clip_values import ClipValues
from .lifting import LiftingModule
from .scores import Evaluation, Scores, compared, scoring

__all__ = ["Evaluation", "evaluate", "poses_of"]


def poses_of(module: LiftingModule, batch: dict[str, Tensor]) -> Tensor:
    """Predicted camera-space poses of a batch, `[B, T, J, 3]`, mm."""
    return module.predict_step(batch, 0)


@torch.no_grad()
def evaluate(
    module: LiftingModule,
    batches: Iterable[dict[str, Tensor]],
    actions: Sequence[str],
    *,
    subjects: Sequence[str] = (),
    protocol: str = "subjects",
    tested: str = "test",
    progress: str = "",
    clips: ClipValues | None = None,
) -> Evaluation:
    """Run the module over batches of :class:`structloss.data.PoseWindows` and score them.

    Args:
        module: is switched to evaluation mode.
        batches: a validation or test loader.
        actions, subjects: names of the batches' action and subject numbers.
        protocol: name in :data:`~structloss.data.protocols.PROTOCOLS`, whose own numbers are wanted too.
        tested: what is scored, the "test" subjects or those of "train".
        progress: label of a progress bar on a terminal; empty for none.
        clips: is given the same batches, to add up clip by clip.
    """
    module.eval()
    shown: Iterable[dict[str, Tensor]] = track(batches, progress, bool(progress))  # type: ignore[arg-type]  # a bar needs no indices
    on_device = ({key: value.to(module.device) for key, value in batch.items()} for batch in shown)
    if module.model.kind == "pretrain":
        losses = [module.loss(module.model.supervise(batch["input"], batch["target"]))[0] for batch in on_device]
        return Evaluation({"loss": float(torch.stack(losses).mean())})
    means = module.test_metrics, module.test_order
    for metrics in means:
        metrics.reset()
    windows = windows_of(batches)
    temporal = windows is None or windows.store.temporal
    scores = Scores(
        module.skeleton, actions, subjects, protocol, module.device, module.root, temporal, module.repeats, tested
    )
    for batch in on_device:
        prediction = module.predict_image_space(batch["input"])
        with scoring():
            pair = compared(module, prediction, batch)
            pair.update(*means)
            scores.update(module, pair, batch)
            if clips is not None:
                clips.update(pair, batch)
    with scoring():
        return scores.compute({k.removeprefix("test/"): float(v) for m in means for k, v in m.compute().items()})
