"""The comparison helpers must be able to fail."""

import pytest
import torch
from compare import assert_close_gradients, assert_close_values


def test_equal_passes():
    g = torch.randn(5)
    assert_close_gradients(g, g.clone(), relative=1e-12)
    assert_close_values(1.0, 1.0, relative=0)


@pytest.mark.parametrize(
    "found",
    [torch.tensor([1.0, 2.0, 3.1]), torch.tensor([1.0, 2.0, float("nan")]), torch.tensor([1.0, 2.0]), -torch.ones(3)],
    ids=["off", "nan", "shape", "sign"],
)
def test_wrong_gradients_fail(found):
    with pytest.raises(AssertionError):
        assert_close_gradients(found, torch.tensor([1.0, 2.0, 3.0]), relative=1e-3)


def test_noise_around_an_expected_zero_fails():
    with pytest.raises(AssertionError):
        assert_close_gradients(torch.tensor([1e-12]), torch.zeros(1), relative=1e-3)


def test_wrong_value_fails():
    with pytest.raises(AssertionError):
        assert_close_values(1.001, 1.0, relative=1e-4)
    with pytest.raises(AssertionError):
        assert_close_values(float("nan"), 1.0, relative=1e-4)
