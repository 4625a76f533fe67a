"""The plain forms that the backbones are timed against compute the same."""

import pytest
import torch
from backbone_cases import NAMES, clip, extras, shallow, small

from bench.backbones import plain_form
from structloss import backbones
from structloss.backbones.official import to_official


@pytest.mark.parametrize("name", NAMES)
def test_plain_form_agrees(name):
    facts, model, x = backbones.info(name), shallow(name), clip(name)
    plain = plain_form(facts.family)
    arguments = {**facts.arguments, **small(name)}
    with torch.no_grad():
        want = model(x, **extras(name, x))
        x = x if facts.kind == "refine" else x[..., : len(facts.channels)]
        got = plain(to_official(model), x, **arguments, **extras(name, x))
    assert float((got - want).abs().max() / want.abs().max()) < (0.05 if facts.family == "motionagformer" else 1e-5)
