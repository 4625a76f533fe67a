"""Values and gradients of the losses against figures computed by the published code."""

from pathlib import Path

import numpy as np
import pytest
import torch
from compare import value_and_grad
from golden.fill import fill_input

import structloss

GOLDEN = np.load(Path(__file__).parent / "golden" / "losses.npz")
BACKENDS = [name for name in ("torch", "cpp") if structloss.backends()[name]]


def inputs(variant):
    pred, target = (torch.from_numpy(fill_input(name, (4, 27, 17, 3))).double() for name in ("loss-pred", "loss-gt"))
    if variant == "_ties":
        pred, target = (pred * 4).round() / 4, (target * 4).round() / 4
    if variant == "_zeropred":
        pred = torch.zeros_like(pred)
    return pred, target


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("key", [k for k in GOLDEN if not k.endswith("__grad")])
def test_published_figures(key, backend):
    if key == "loss_mpjpe":
        value, gradient = value_and_grad(structloss.mpjpe, *inputs(""), backend=backend)
    else:
        _, which, *variant = key.split("_")
        variant = f"_{variant[0]}" if variant else ""
        value, gradient = value_and_grad(
            structloss.depth_ranking,
            *inputs(variant),
            over={"spatial": "joints", "temporal": "frames"}[which],
            reduction="sum" if variant == "_sum" else "mean",
            backend=backend,
        )
    golden = float(GOLDEN[key])
    assert abs(float(value) - golden) <= 1e-10 * max(1.0, abs(golden))
    if f"{key}__grad" in GOLDEN:  # the published sums come without
        expected = torch.from_numpy(GOLDEN[f"{key}__grad"])
        assert (gradient - expected).abs().max() <= 1e-8 * expected.abs().max()
