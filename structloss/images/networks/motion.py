"""Motion models of shape templates: from the numbers of a network to the matrices that move the parts.

Source: Schmidtke et al., CVPR 2021 ("affine"); Yoo and Russakovsky, ICCV 2023 workshop ("coarse-to-fine",
"constrained"); `constraint="similarity"` is ours.

A matrix `[2, 3]` maps a point (x, y, 1) of the template, in pixels, to one of the image. It turns and scales about
pixel (0, 0), the upper left corner. A network's output of zero is the identity in all of them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...errors import ArgumentError, check_choice
from ...shape_templates import FIRST_STEP, MATRICES, PARTS, SECOND_STEP

__all__ = ["CONSTRAINTS", "MOTIONS", "Motion", "compose", "move"]

MOTIONS = ("affine", "coarse-to-fine", "constrained")
"""How parts move: each by a matrix of its own; whole arms first, then their parts; that with fewer degrees of freedom.
"""

CONSTRAINTS = ("official", "similarity")
"""What a matrix of "constrained" is made of, see :class:`Motion`."""

# A part that stays in the second step reads an extra matrix, the identity, that stands behind those of the network.
_STAYS = MATRICES


class Motion(nn.Module):
    """Numbers `[B, outputs]` -> (the numbers in shape, matrices `[steps, B, 18, 2, 3]` in pixels).

    - "affine": 18 matrices; A = I + output. One step.
    - "coarse-to-fine": 20 matrices in two steps. In the first each part has one, but the three parts of an arm share
      one; the second moves the parts of the arms again, from where they are, and no others.
    - "constrained", "official": (angle, tau) for each of the 20 matrices and two scales s for the whole body,
      A = I + [ R diag(s) | R tau ], R = [[cos, sin], [-sin, cos]]. Since the identity is added, the scale of a part is
      not s but depends on its angle.
    - "constrained", "similarity" [ours]: A = [ exp(sigma) R | tau ] with one sigma for the whole body, the identity
      where all numbers are 0. The second step turns and moves but does not scale again, so that all parts keep their
      lengths in proportion.

    The third column is multiplied by the image's size: networks give translations in images.

    Args:
        motion: one of :data:`MOTIONS`.
        constraint: of "constrained", one of :data:`CONSTRAINTS`; None is "official".
        size: of the image, pixels.

    Attributes:
        outputs: how many numbers it takes: 108, 120, 62 or 61.
        steps: 1 or 2.
    """

    first: Tensor
    second: Tensor

    def __init__(self, motion: str, constraint: str | None, size: int) -> None:
        check_choice("motion", motion, MOTIONS)
        if constraint is not None:
            check_choice("constraint", constraint, CONSTRAINTS)
            if motion != "constrained":
                raise ArgumentError(
                    f"constraint is {constraint!r} and motion is {motion!r}, expected a constraint with motion "
                    "'constrained' alone."
                )
        super().__init__()
        self.motion, self.constraint, self.size = motion, constraint or "official", size
        self.steps = 1 if motion == "affine" else 2
        if motion == "constrained":
            self.outputs = 3 * MATRICES + (2 if self.constraint == "official" else 1)
        else:
            self.outputs = 6 * (len(PARTS) if motion == "affine" else MATRICES)
        second = [_STAYS if matrix is None else matrix for matrix in SECOND_STEP]
        self.register_buffer("first", torch.tensor(FIRST_STEP), persistent=False)
        self.register_buffer("second", torch.tensor(second), persistent=False)

    def forward(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        parameters = numbers if self.motion == "constrained" else numbers.unflatten(1, (-1, 2, 3))
        first, second = self._matrices(parameters)
        first = self._pixels(first)
        if self.steps == 1:
            return parameters, first[None]
        second = torch.cat((self._pixels(second), self._identity(numbers).expand(numbers.shape[0], 1, 2, 3)), 1)
        return parameters, torch.stack((first.index_select(1, self.first), second.index_select(1, self.second)))

    def _matrices(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Those of the first and of the second step, `[B, matrices, 2, 3]`, translations in images."""
        if self.motion != "constrained":
            matrices = self._identity(parameters) + parameters
            return matrices, matrices
        each = parameters[:, : 3 * MATRICES].unflatten(1, (MATRICES, 3))
        scale = parameters[:, None, 3 * MATRICES :]
        sine, cosine = each[..., 0].sin(), each[..., 0].cos()
        turn = torch.stack((torch.stack((cosine, sine), -1), torch.stack((-sine, cosine), -1)), -2)
        move = each[..., 1:, None]
        if self.constraint == "similarity":
            return torch.cat((scale.exp()[..., None] * turn, move), -1), torch.cat((turn, move), -1)
        matrices = self._identity(parameters) + torch.cat(
            (turn * scale[..., None, :], (turn * each[..., None, 1:]).sum(-1, keepdim=True)), -1
        )
        return matrices, matrices

    def _pixels(self, matrices: Tensor) -> Tensor:
        return torch.cat((matrices[..., :2], matrices[..., 2:] * self.size), -1)

    @staticmethod
    def _identity(like: Tensor) -> Tensor:
        return torch.eye(2, 3, dtype=like.dtype, device=like.device)


def move(matrices: Tensor, points: Tensor) -> Tensor:
    """Points moved by matrices: `[..., N, 2, 3]` and `[..., N, 2]` (x, y) -> `[..., N, 2]`."""
    return (matrices[..., :2] * points[..., None, :]).sum(-1) + matrices[..., 2]


def compose(matrices: Tensor) -> Tensor:
    """One matrix for all steps: `[steps, ..., 2, 3]`, the first step's first, -> `[..., 2, 3]`."""
    total = matrices[0]
    for later in matrices[1:]:
        # No matrix products here: autocast would take them in half precision, and translations are hundreds of pixels.
        linear = (later[..., :2, None] * total[..., None, :, :2]).sum(-2)
        shift = move(later, total[..., 2])
        total = torch.cat((linear, shift[..., None]), -1)
    return total
