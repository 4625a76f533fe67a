"""The simple baseline: flat network and clips, statistics, joints."""

import numpy as np
import pytest
import torch
from backbone_cases import clip, filled

from structloss import backbones
from structloss.errors import ArgumentError


@pytest.mark.parametrize(("name", "joints"), [("simplebaseline-16j", 17), ("simplebaseline-semgcn", 16)])
def test_simplebaseline_adapts_clips_to_the_flat_network(name, joints):
    model = filled(name)
    x = clip(name)
    sixteen = x[:, :, [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15, 16]]
    with torch.no_grad():
        out = model(x)
        flat = model.forward_flat(sixteen[..., :2].reshape(18, 32))
        torch.testing.assert_close(model(sixteen), out)
    assert out.shape == (2, 9, joints, 3) and not out[:, :, 0].any()
    torch.testing.assert_close(out[:, :, 1:].reshape(18, -1), flat)


def test_simplebaseline_statistics():
    rng = np.random.default_rng(0)
    mean2, std2, mean3, std3 = (rng.uniform(1, 2, shape) for shape in ((16, 2), (16, 2), (16, 3), (16, 3)))
    plain = filled("simplebaseline")
    model = filled("simplebaseline", input_mean=mean2, input_std=std2, output_mean=mean3, output_std=std3.tolist())
    assert model.state_dict().keys() == plain.state_dict().keys()
    x = clip("s", channels=2)[:, :, :16]
    with torch.no_grad():
        got = model(x * torch.tensor(std2).float() + torch.tensor(mean2).float())
        want = plain(x)[:, :, 1:] * torch.tensor(std3).float() + torch.tensor(mean3).float()
    torch.testing.assert_close(got[:, :, 1:], want, rtol=1e-3, atol=1e-4)
    assert not got[:, :, 0].any()


@pytest.mark.parametrize(
    ("statistics", "message"),
    [
        ({"input_mean": np.zeros((16, 2))}, "input_std is None, expected input_mean and input_std together"),
        ({"output_std": np.ones((16, 3))}, "output_mean is None"),
        ({"output_mean": np.zeros((17, 3)), "output_std": np.ones((17, 3))}, r"output_mean has shape \[17, 3\]"),
        ({"input_mean": np.zeros((16, 2)), "input_std": np.zeros((16, 2))}, "input_std has the value 0, expected"),
    ],
)
def test_simplebaseline_bad_statistics(statistics, message):
    with pytest.raises(ArgumentError, match=message):
        backbones.create("simplebaseline", **statistics)


def test_simplebaseline_single_frame():
    model = filled("simplebaseline")
    x = clip("s", batch=1, frames=1)
    assert model(x).shape == (1, 1, 17, 3)
    with pytest.raises(ArgumentError, match="x has 1 frame in all, expected 2 or more in training"):
        model.train()(x)
