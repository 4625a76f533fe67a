"""Masked pose modelling, the first training stage of P-STMO.

Source: Shan, Liu, Zhang, Wang, Ma, Gao, "P-STMO: Pre-trained Spatial Temporal Many-to-One Model for 3D Human Pose
Estimation", ECCV 2022.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ArgumentError, DtypeError, check_same_device, check_tensor
from .base import Supervision
from .blocks import StdNorm, check_rate, check_size, check_sizes
from .pstmo_parts import PAPER, FrameHead, Stage, TemporalStack
from .registry import family

__all__ = ["PSTMOPretrain"]


@family(
    "pstmo-pretrain",
    {
        "243": {
            "frame_step": 2,
            "params": 3_315_620,
            "macs": 533_842_432,
            "arguments": {"depth": 4, "decoder_depth": 3, "frames": 243, "temporal_rate": 0.6, "masked_joints": 3},
        },
        "s-243": {
            "frame_step": 2,
            "params": 2_656_036,
            "macs": 340_838_144,
            "arguments": {"depth": 3, "decoder_depth": 2, "frames": 243, "temporal_rate": 0.8, "masked_joints": 2},
        },
        "s-gt-243": {
            "frame_step": 2,
            "params": 2_656_036,
            "macs": 340_838_144,
            "note": "For 2D ground truth; the others are for detected keypoints.",
            "arguments": {"depth": 3, "decoder_depth": 2, "frames": 243, "temporal_rate": 0.8, "masked_joints": 7},
        },
        "s-3dhp-81": {
            "skeleton": "mpi_inf_3dhp",
            "params": 2_593_828,
            "macs": 120_540_416,
            "arguments": {"depth": 3, "decoder_depth": 2, "frames": 81, "temporal_rate": 0.7, "masked_joints": 2},
        },
    },
    flagship="243",
    paper=PAPER,
    kind="pretrain",
    file_entry="",
)
class PSTMOPretrain(Stage):
    """Reconstructs 2D poses of which whole frames and single joints were masked.

    Source: Shan et al., P-STMO, ECCV 2022. The encoders are those of :class:`~structloss.backbones.pstmo.PSTMO`, to
    which :func:`~structloss.backbones.pstmo.transfer` brings them; the temporal one sees the visible frames only, and a
    decoder of half the width fills in the masked ones.

    Masks are drawn by `forward` unless they are given. How many frames are masked decides about shapes: it is known for
    drawn masks, is counted for given ones, and in a compiled or exported graph, where that is not possible, the
    temporal encoder runs on all frames and attends to the visible ones, with the same result. `masked_frames` spares
    both.

    Args:
        frames: clip length F; the network takes exactly that many frames.
        depth: layers of the temporal encoder.
        decoder_depth: layers of the decoder.
        dim: channels C of the encoder, a multiple of `2 * num_heads`; the decoder has half as many.
        hidden: even width between the two layers of the encoder's MLPs; the decoder's have half of it.
        encoder_width: channels of the spatial encoder.
        num_heads: attention heads.
        num_joints: joints J.
        drop_rate: dropout in the spatial encoder, on the attention weights, after attention and in the MLPs.
        temporal_rate: share of the frames that is masked, the same frames in a whole batch.
        masked_joints: joints that are masked in every frame.
        maskable_joints: they are drawn among the joints before this one. The published code never masks the last joint;
            `num_joints` masks it like the others.

    Raises:
        ArgumentError: an impossible size or rate.
    """

    def __init__(
        self,
        *,
        frames: int = 243,
        depth: int = 4,
        decoder_depth: int = 3,
        dim: int = 256,
        hidden: int = 512,
        encoder_width: int = 512,
        num_heads: int = 8,
        num_joints: int = 17,
        drop_rate: float = 0.1,
        temporal_rate: float = 0.6,
        masked_joints: int = 3,
        maskable_joints: int = 16,
    ) -> None:
        check_sizes(frames=frames, depth=depth, decoder_depth=decoder_depth, encoder_width=encoder_width)
        check_sizes(num_heads=num_heads, num_joints=num_joints, masked_joints=masked_joints)
        check_size("dim", dim, multiple_of=2 * num_heads)
        check_size("hidden", hidden, multiple_of=2)
        check_rate("drop_rate", drop_rate)
        check_rate("temporal_rate", temporal_rate)
        check_size("maskable_joints", maskable_joints)
        if not masked_joints <= maskable_joints <= num_joints:
            raise ArgumentError(
                f"maskable_joints is {maskable_joints}, expected {masked_joints} to {num_joints}, between "
                "masked_joints and num_joints."
            )
        super().__init__(kind="pretrain", frames=frames, joints=(num_joints,))
        self.masked_frames = int(frames * temporal_rate)
        self.masked_joints = masked_joints
        self.maskable_joints = maskable_joints
        self.spatial_mask_token = nn.Parameter(torch.empty(1, 1, 2))
        self.add_encoders(
            dim=dim, hidden=hidden, encoder_width=encoder_width, num_heads=num_heads, depth=depth, drop_rate=drop_rate
        )
        self.encoder_LN = StdNorm(dim)
        self.encoder_to_decoder = nn.Linear(dim, dim // 2, bias=False)
        self.mask_token = nn.Parameter(torch.empty(1, 1, dim // 2))
        self.dec_pos_embedding = nn.Parameter(torch.empty(1, frames, dim // 2))
        self.decoder = TemporalStack(dim // 2, num_heads, hidden // 2, drop_rate, [None] * decoder_depth)
        self.fcn_dec = FrameHead(dim // 2, num_joints, 2)
        self.reset_parameters()

    def draw_masks(self) -> tuple[Tensor, Tensor]:
        """Masks for a batch, on the model's device, True = masked: `[F]` of frames, with `masked_frames` of them, and
        `[F, J]` of joints, with `masked_joints` in every frame."""
        device = self._any_weight().device
        temporal = torch.rand(self.frames, device=device).argsort() < self.masked_frames
        chosen = torch.rand(self.frames, self.maskable_joints, device=device).argsort(-1)
        spatial = F.pad(chosen < self.masked_joints, (0, self.joints[0] - self.maskable_joints))
        return temporal, spatial

    @staticmethod
    def order(temporal_mask: Tensor) -> Tensor:
        """Indices `[F]` of the frames as the output has them: the visible ones in order, then the masked ones."""
        return temporal_mask.to(torch.uint8).argsort(stable=True)

    def forward(
        self,
        x: Tensor,
        temporal_mask: Tensor | None = None,
        spatial_mask: Tensor | None = None,
        masked_frames: int | None = None,
    ) -> Tensor:
        """Reconstruct a clip.

        Args:
            x: `[B, F, J, C]`, exactly F = `frames`; C = 2 (x, y) or 3 (the confidence is ignored). Coordinates as for
                the network that the weights are meant for.
            temporal_mask: boolean `[F]`, True = masked, with at least one visible frame; None draws one.
            spatial_mask: boolean `[F, J]`, True = masked; None draws one. It also holds in visible frames.
            masked_frames: how many frames `temporal_mask` masks, if that is known: then nothing has to wait for a GPU
                to count them, and compiled graphs run on the visible frames alone.

        Returns:
            `[B, F, J, 2]`, frames in the order of :meth:`order`: visible ones first.

        Raises:
            ArgumentError: a wrong shape or device, or no visible frame.
            DtypeError: not floating point, or not the weights' dtype outside autocast; a mask that is not boolean.
        """
        x = self.prepare(x)
        if temporal_mask is None or spatial_mask is None:
            frames, joints = self.draw_masks()
            if temporal_mask is None:
                temporal_mask, masked_frames = frames, self.masked_frames
            spatial_mask = joints if spatial_mask is None else spatial_mask
        self._check_mask("temporal_mask", temporal_mask, (self.frames,))
        self._check_mask("spatial_mask", spatial_mask, (self.frames, self.joints[0]))
        visible = self._visible(temporal_mask, masked_frames)
        order = self.order(temporal_mask)

        h = self.encoder(torch.where(spatial_mask[..., None], self.spatial_mask_token, x)) + self.pos_embedding
        if visible is None:
            seen = torch.arange(self.frames, device=x.device) < self.frames - temporal_mask.sum()
            features = self._features(h.index_select(1, order), seen)
            tokens = torch.where(seen[:, None], features, self.mask_token)
        else:
            features = self._features(h.index_select(1, order[:visible]), None)
            tokens = torch.cat((features, self.mask_token.expand(x.shape[0], self.frames - visible, -1)), dim=1)
        h = tokens + self.dec_pos_embedding.index_select(1, order)
        for layer in self.decoder.layers:
            h = self.run(layer, h)
        return self.fcn_dec(h)

    def _features(self, h: Tensor, seen: Tensor | None) -> Tensor:
        for layer in self.tem.layers:
            h = self.run(layer, h) if seen is None else self.run(layer, h, seen)
        return self.encoder_to_decoder(self.encoder_LN(h))

    def _visible(self, temporal_mask: Tensor, masked_frames: int | None) -> int | None:
        """Number of visible frames; None if only the graph will know it."""
        if masked_frames is None:
            if torch.compiler.is_compiling():
                return None
            masked_frames = int(temporal_mask.sum())
            if masked_frames == self.frames:
                raise ArgumentError(f"temporal_mask masks all {self.frames} frames, expected at least one visible one.")
        elif not isinstance(masked_frames, int) or not 0 <= masked_frames < self.frames:
            raise ArgumentError(f"masked_frames is {masked_frames!r}, expected an integer from 0 to {self.frames - 1}.")
        return self.frames - masked_frames

    def _check_mask(self, argument: str, mask: object, shape: tuple[int, ...]) -> None:
        check_tensor(argument, mask, "a boolean tensor")
        assert isinstance(mask, Tensor)
        if mask.dtype != torch.bool:
            raise DtypeError(f"{argument} has dtype {mask.dtype}, expected a boolean tensor.")
        if mask.shape != shape:
            raise ArgumentError(f"{argument} has shape {list(mask.shape)}, expected {list(shape)}.")
        check_same_device(argument, mask, "the model", self._any_weight())

    def supervise(
        self,
        x: Tensor,
        target: Tensor | None = None,
        weight: Tensor | None = None,
        *,
        temporal_mask: Tensor | None = None,
        spatial_mask: Tensor | None = None,
    ) -> list[Supervision]:
        """The forward pass of training: the reconstruction of all frames, masked or not, against the input.

        Args:
            x: input clip, as for `forward`.
            target: not used, the input being what is compared with; taken so that all networks are trained by the same
                call.
            weight: `[B, F, J]` or None.
            temporal_mask, spatial_mask: as for `forward`.

        Returns:
            One :class:`~structloss.backbones.base.Supervision`, frames in the order of :meth:`order`. A third
            coordinate of 0 in prediction and target makes distances of poses those of the image.
        """
        masked_frames = self.masked_frames if temporal_mask is None else None
        frames, joints = self.draw_masks()
        temporal_mask = frames if temporal_mask is None else temporal_mask
        spatial_mask = joints if spatial_mask is None else spatial_mask
        prediction = self(x, temporal_mask, spatial_mask, masked_frames)
        order = self.order(temporal_mask)
        return [
            Supervision(
                F.pad(prediction, (0, 1)),
                F.pad(x[..., :2].detach().index_select(1, order), (0, 1)),
                None if weight is None else weight.index_select(1, order),
            )
        ]
