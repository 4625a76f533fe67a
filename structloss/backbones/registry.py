"""The registry of backbones: a family's module declares its variants, `create` and `info` look them up by name.

Adding a family is adding one module to this package: every module here is imported when a name is first looked up, and
its :data:`family` decorators register what it serves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import ArgumentError, shown
from .base import Backbone
from .checkpoints import load_published
from .families import Families
from .pretrained import pretrained_file

__all__ = ["BACKBONES", "BackboneInfo", "create", "family", "info", "names"]


@dataclass(frozen=True, kw_only=True)
class BackboneInfo:
    """What is known about one variant. Without a default is what every one has to say.

    Attributes:
        name: registry name, the name of its golden file.
        family: name of the family; the bare family name stands for its flagship variant.
        paper: authors, title, venue.
        kind: one of :data:`~structloss.backbones.base.KINDS`: `"sequence"` (T frames in, T poses out), `"centre"` (a
            receptive field in, the pose of its centre out), `"frame"` (every frame by itself), `"refine"` (a second
            stage that takes poses), `"pretrain"` (no poses out).
        frames: length of the clips that it was trained on, or receptive field.
        channels: input channels of the published network.
        joints_in, joints_out: numbers of joints; the first of `joints_in` is the usual one.
        skeleton: name in `structloss.skeletons` of the joint order of input and output.
        params: number of parameters.
        macs: multiply-accumulates of a clip of `frames` frames, matrix products of linear layers and attention.
        published: figures of the paper or repository, `<data>_<metric>_<unit>_<2D source>`: `h36m_mpjpe_mm_cpn`,
            `h36m_pa_mpjpe_mm_gt2d`, `mpi_inf_3dhp_pck_gt2d`, ...; sources cpn, sh (stacked hourglass), gt2d (ground
            truth). What was not found in a source is left out. Empty for variants that no paper has.
        recipe: name of the training recipe in `structloss.harness`; empty if there is none.
        keeps: `"all"` or `"centre"`: which poses of a clip the published test keeps.
        frame_step: the published clips take every n-th frame of a 50 Hz video.
        file_entry: entry of a published file that holds the weights; empty if the file is the state dict itself.
        file_prefix: what stands before every key there, such as DataParallel's `"module."`.
        arguments: constructor arguments of this variant; `create` takes others as overrides.
        note: what else one should know, in a sentence; empty for most.
    """

    name: str
    family: str
    paper: str
    kind: str
    frames: int
    channels: tuple[str, ...] = ("x", "y")
    joints_in: tuple[int, ...] = (17,)
    joints_out: int = 17
    params: int
    macs: int
    skeleton: str = "h36m"
    published: Mapping[str, float] = field(default_factory=dict, hash=False)
    recipe: str = ""
    keeps: str = "all"
    frame_step: int = 1
    file_entry: str = "model_pos"
    file_prefix: str = "module."
    note: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def published_error(self) -> str:
        """The published MPJPE for tables, such as "44.3 cpn"; empty if there is none.

        With detected 2D rather than ground truth, and on the data set of its skeleton, where there is a choice.
        """
        found = [key for key in self.published if "mpjpe_mm" in key and "_pa_" not in key]
        if not found:
            return ""
        key = min(found, key=lambda key: (not key.startswith(self.skeleton), "gt2d" in key))
        data = {"mpi_inf_3dhp": "3DHP ", "h3wb": "H3WB ", "humaneva": "HumanEva "}
        prefix = next((label for start, label in data.items() if key.startswith(start)), "")
        source = key.partition("mpjpe_mm")[2].strip("_")
        return f"{prefix}{self.published[key]:g} {source}".strip()

    def cut_for(self, poses: int) -> dict[str, int]:
        """How clips are cut, as `window` and `context` of a data module, so that a network answers with so many poses
        in a row: one of the centre is moved along a clip that is longer by what it sees before and after a pose."""
        context = self.frames // 2 if self.kind == "centre" else 0
        return {"window": poses + 2 * context, "context": context}


def _usual(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A variant's recipe has its name, and its `frames` are those of its `arguments`, unless it says otherwise."""
    return {"recipe": name} | {key: value for key, value in arguments.items() if key == "frames"}


BACKBONES: Families[BackboneInfo, Backbone] = Families("backbone", BackboneInfo, __package__, _usual)

family = BACKBONES.family
"""Decorator of a family's builder, see :meth:`~structloss.backbones.families.Families.family`."""


def names() -> tuple[str, ...]:
    """Names of all variants, sorted; the bare family names (`"motionbert"`, ...) are accepted beside them."""
    return BACKBONES.names()


def info(name: str) -> BackboneInfo:
    """Facts about a variant, or about the flagship of a bare family name.

    Raises:
        UnknownNameError: the name is not registered.
    """
    return BACKBONES.entry(name)[0]


def create(name: str, *, pretrained: bool = False, gradient_checkpointing: bool = False, **overrides: Any) -> Backbone:
    """Build a backbone, with fresh weights unless it is asked otherwise.

    Args:
        name: a variant (`"motionbert-lite"`) or a family (`"motionbert"`, its flagship).
        pretrained: with the weights that come with the package, of those in
            :func:`~structloss.backbones.pretrained_names`.
        gradient_checkpointing: in training, recompute the network's levels in the backward pass instead of keeping
            their activations: less memory, about a third more time.
        **overrides: constructor arguments to use instead of the variant's.

    Returns:
        A module, in training mode: `[B, T, J, C]` (C = 2 or 3: x, y, maybe confidence) to `[B, T_out, J_out, 3]`.
        Networks of kind `"refine"` and `"pretrain"` take and give what their classes say.

    Raises:
        UnknownNameError: the name is not registered.
        ArgumentError: an override that the family doesn't have, or that has an impossible value; `pretrained` with
            one, of a variant that no weights come with, or that is neither True nor False.
    """
    if not isinstance(pretrained, bool):
        raise ArgumentError(
            f"pretrained is {shown(pretrained)}, expected True or False; weights of a file are read by load_published."
        )
    if pretrained and overrides:
        raise ArgumentError(f"{min(overrides)} is given with pretrained, expected the variant as it was trained.")
    weights = pretrained_file(info(name).name) if pretrained else None
    model = BACKBONES.build(name, overrides)
    if weights is not None:
        load_published(model, weights)
    model.gradient_checkpointing = gradient_checkpointing
    model.keeps, model.frame_step = info(name).keeps, info(name).frame_step
    return model
