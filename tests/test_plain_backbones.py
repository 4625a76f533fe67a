"""The plain forms that the backbones are timed against compute the same."""

from pathlib import Path

import pytest
import torch
from backbone_cases import NAMES, clip, extras, shallow, small

import bench.backbones
from bench.backbones import has_plain_form, one_of_each_family, plain_form
from structloss import backbones, images
from structloss.backbones.official import to_official
from structloss.errors import ArgumentError

#: a plain form is written where there is something to time a family against
TIMED = [name for name in NAMES if has_plain_form(backbones.info(name).family)]


def test_every_plain_form_is_of_a_family():
    """None is left over, and none of those that were timed has lost its own."""
    folder = Path(bench.backbones.__file__).parent / "plain"
    forms = {path.stem for path in folder.glob("*.py")} - {"common", "__init__"}
    families = {backbones.info(name).family for name in TIMED}
    from_pixels = {family for name in images.names() if has_plain_form(family := images.info(name).family)}
    assert forms == {bench.backbones._module(family) for family in families | from_pixels}
    assert {backbones.info(name).family for name in one_of_each_family()} == families
    assert families >= {
        "d3dp", "jointformer", "ktpformer", "mhformer", "mixste", "motionagformer", "motionbert", "poseformer",
        "poseformerv2", "pstmo", "pstmo-pretrain", "repose", "semgcn", "simplebaseline", "stcformer", "videopose3d",
    }  # fmt: skip


def test_a_family_without_a_plain_form():
    with pytest.raises(ArgumentError, match=r"linear has no plain form .* expected bench/plain/linear\.py"):
        plain_form("linear")


@pytest.mark.parametrize("name", TIMED)
def test_plain_form_agrees(name):
    facts, model, x = backbones.info(name), shallow(name), clip(name)
    plain = plain_form(facts.family)
    arguments = {**facts.arguments, **small(name)}
    with torch.no_grad():
        want = model(x, **extras(name, x))
        x = x if facts.kind == "refine" else x[..., : len(facts.channels)]
        got = plain(to_official(model), x, **arguments, **extras(name, x))
    assert float((got - want).abs().max() / want.abs().max()) < (0.05 if facts.family == "motionagformer" else 1e-5)
