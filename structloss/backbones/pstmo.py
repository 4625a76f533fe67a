"""P-STMO, a many-to-one network with a head for all frames beside the centre frame's, and its start from pre-training.

Source: Shan, Liu, Zhang, Wang, Ma, Gao, "P-STMO: Pre-trained Spatial Temporal Many-to-One Model for 3D Human Pose
Estimation", ECCV 2022.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ArgumentError, CheckpointError
from .base import Supervision
from .blocks import check_batch_statistics, check_rate, check_size, check_sizes
from .checkpoints import LoadReport, load_published
from .official import Source, to_official
from .pstmo_parts import PAPER, FrameHead, Stage, TemporalStack, published_name
from .registry import family

__all__ = ["PSTMO", "transfer"]


_LONG = {"frames": 243, "strides": (3, 3, 3, 3, 3)}


@family(
    "pstmo",
    {
        "243": {
            "frame_step": 2,
            "params": 7_009_382,
            "macs": 1_018_364_160,
            "published": {
                "params_M": 6.7,
                "macs_G": 0.8685,
                "h36m_mpjpe_mm_cpn": 42.8,
                "h36m_pa_mpjpe_mm_cpn": 34.4,
            },
            "arguments": {"depth": 4, **_LONG},
        },
        "s-243": {
            "frame_step": 2,
            "params": 6_482_278,
            "macs": 860_729_088,
            "published": {
                "params_M": 6.2,
                "macs_G": 0.741,
                "h36m_mpjpe_mm_cpn": 43.0,
                "h36m_mpjpe_mm_gt2d": 29.3,
            },
            "arguments": {"depth": 3, **_LONG},
        },
        "s-3dhp-81": {
            "skeleton": "mpi_inf_3dhp",
            "params": 5_527_142,
            "macs": 258_680_064,
            "published": {
                "params_M": 5.4,
                "macs_G": 0.2465,
                "mpi_inf_3dhp_mpjpe_mm_gt2d": 32.2,
                "mpi_inf_3dhp_pck_gt2d": 97.9,
                "mpi_inf_3dhp_auc_gt2d": 75.8,
                "h36m_mpjpe_mm_cpn": 44.1,
            },
            "note": "The figure for Human3.6M is that of the same network with every third frame.",
            "arguments": {"depth": 3, "frames": 81, "strides": (3, 3, 3, 3)},
        },
    },
    flagship="243",
    paper=PAPER,
    kind="centre",
    file_entry="",
)
class PSTMO(Stage):
    """A perceptron on every frame (SEM), a transformer over the frames (TEM), and one whose strides leave a single
    token (MOFA), from which the centre frame's pose is read.

    Source: Shan et al., P-STMO, ECCV 2022. Training also predicts the poses of all frames, from the TEM's tokens. The
    strides keep the first token of every level, so the last one descends from the first frame and sees the others
    through attention and convolutions alone, as published.

    Args:
        frames: receptive field F; the network takes exactly that many frames.
        strides: of the MOFA's layers, which must bring F down to 1; published ones are 3 three to five times for 27, 81
            and 243 frames, (1, 3, 3) for 9 and (3, 9, 13) for 351.
        depth: layers of the TEM.
        dim: channels C, a multiple of `num_heads`.
        hidden: width between the two layers of the MLPs.
        encoder_width: channels of the SEM.
        num_heads: attention heads.
        num_joints: joints J.
        drop_rate: dropout in the SEM, on the attention weights, after attention and in the MLPs.

    Raises:
        ArgumentError: an impossible size or rate, or strides that don't fit the frames.
    """

    def __init__(
        self,
        *,
        frames: int = 243,
        strides: Sequence[int] = (3, 3, 3, 3, 3),
        depth: int = 4,
        dim: int = 256,
        hidden: int = 512,
        encoder_width: int = 512,
        num_heads: int = 8,
        num_joints: int = 17,
        drop_rate: float = 0.1,
    ) -> None:
        check_sizes(frames=frames, depth=depth, hidden=hidden, encoder_width=encoder_width)
        check_sizes(num_heads=num_heads, num_joints=num_joints)
        check_size("dim", dim, multiple_of=num_heads)
        check_rate("drop_rate", drop_rate)
        _check_strides(strides, frames)
        super().__init__(kind="centre", frames=frames, joints=(num_joints,))
        self.add_encoders(
            dim=dim, hidden=hidden, encoder_width=encoder_width, num_heads=num_heads, depth=depth, drop_rate=drop_rate
        )
        for level in range(1, min(len(strides), 3) + 1):
            self.register_parameter(f"pos_embedding_{level}", nn.Parameter(torch.empty(1, frames, dim)))
        self.mofa = TemporalStack(dim, num_heads, hidden, drop_rate, strides)
        self.fcn = FrameHead(dim, num_joints, 3)
        self.fcn_1 = FrameHead(dim, num_joints, 3)
        self.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Lift the centre frame.

        Args:
            x: `[B, F, J, C]`, exactly F = `frames`; C = 2 (x, y) or 3 (the confidence is ignored). Image coordinates
                scaled by half the image width and centred, so about [-1, 1].

        Returns:
            `[B, 1, J, 3]`, in the unit of the training target (published: metres for Human3.6M and millimetres for
            MPI-INF-3DHP, relative to the root).

        Raises:
            ArgumentError: a wrong shape or device, or a single clip in training mode.
            DtypeError: not floating point, or not the weights' dtype outside autocast.
        """
        return self._centre(self._tokens(x))

    def forward_all(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The centre frame's pose `[B, 1, J, 3]` and the auxiliary poses of all frames (VTE) `[B, F, J, 3]`; takes and
        raises what `forward` does."""
        tokens = self._tokens(x)
        return self._centre(tokens), self.fcn_1(tokens)

    def supervise(self, x: Tensor, target: Tensor, weight: Tensor | None = None) -> list[Supervision]:
        """All frames and the centre frame, of equal weight."""
        centre, every = self.forward_all(x)
        return [
            Supervision(every, target, weight),
            Supervision(centre, self.match(target), None if weight is None else self.match(weight)),
        ]

    def load_first_stage(self, checkpoint: Mapping[str, Any] | str | os.PathLike[str]) -> LoadReport:
        """Start from the encoders of a pre-training checkpoint, see :func:`transfer`."""
        return transfer(checkpoint, self)

    def _tokens(self, x: Tensor) -> Tensor:
        x = self.prepare(x)
        check_batch_statistics(self.training, x.shape[0], "clip")
        h = self.encoder(x) + self.pos_embedding
        for layer in self.tem.layers:
            h = self.run(layer, h)
        return h

    def _centre(self, h: Tensor) -> Tensor:
        for level, layer in enumerate(self.mofa.layers, start=1):
            if level <= 3:
                h = h + self.get_parameter(f"pos_embedding_{level}")[:, : h.shape[1]]
            h = self.run(layer, h)
        return self.fcn(h)


def _check_strides(strides: Sequence[int], frames: int) -> None:
    left = frames
    for stride in strides:
        check_size("strides", stride)
        left = -(-left // stride)
    if not strides or left != 1:
        raise ArgumentError(
            f"strides is {tuple(strides)}, which brings {frames} frames down to {left}, expected strides that leave 1."
        )


class _Shared(nn.Module):
    """The part of a P-STMO network that pre-training provides, under the names that it has there."""

    def __init__(self, model: PSTMO) -> None:
        super().__init__()
        self.encoder, self.pos_embedding, self.tem = model.encoder, model.pos_embedding, model.tem

    def official(self, key: str) -> str | Source:
        return published_name(self, key)


def transfer(pretrained: nn.Module | Mapping[str, Any] | str | os.PathLike[str], model: PSTMO) -> LoadReport:
    """Start a P-STMO network with the pre-trained encoders, the second stage of training; the rest stays as it is.

    Args:
        pretrained: a :class:`~structloss.backbones.pstmo_pretrain.PSTMOPretrain`, or its checkpoint as
            :func:`~structloss.backbones.load_published` takes it: a file or a state dict, by published names or ours.
        model: the network to start; it is changed completely or not at all.

    Returns:
        What was loaded; the parts of pre-training that the network doesn't have are listed as unexpected.

    Raises:
        ArgumentError: `model` is another network.
        MissingFileError: there is no such file.
        CheckpointError: the file is unreadable, or its encoders are incomplete or of another size.
    """
    if not isinstance(model, PSTMO):
        raise ArgumentError(f"model is a {type(model).__name__}, expected a PSTMO network.")
    source = to_official(pretrained) if isinstance(pretrained, nn.Module) else pretrained
    shared = _Shared(model)
    trial = copy.deepcopy(shared)
    report = load_published(trial, source, strict=False)
    more = [key for key in report.unexpected if key.startswith(("encoder.", "Transformer.", "tem."))]
    if report.mismatched or report.missing or more:
        if report.mismatched:
            key, found, want = report.mismatched[0]
            why = f"{key} has shape {list(found)}, expected {list(want)}"
        else:
            why = f"{report.missing[0]} is missing" if report.missing else f"{more[0]} is not in the model"
        raise CheckpointError(f"{report.source} does not hold the encoders of this {type(model).__name__}: {why}.")
    shared.load_state_dict(trial.state_dict())
    return report
