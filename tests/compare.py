"""How the tests compare a loss and its gradient with an oracle."""

import torch

import structloss


def assert_close_gradients(found, expected, *, relative, what=""):
    """Compare gradients as vectors: relative L2 error and the worst element against the largest one."""
    assert found.shape == expected.shape, f"{what}: shape {found.shape}, expected {expected.shape}"
    found, expected = found.double(), expected.double()
    assert torch.isfinite(found).all(), f"{what}: not finite"
    scale = expected.norm()
    if scale == 0:
        assert found.abs().max() == 0, f"{what}: expected a zero gradient, found up to {found.abs().max():.3g}"
        return
    error = (found - expected).norm() / scale
    assert error <= relative, f"{what}: relative L2 error {error:.3g}, allowed {relative:.3g}"
    worst = (found - expected).abs().max() / expected.abs().max()
    assert worst <= relative * 10, (
        f"{what}: worst element off by {worst:.3g} of the largest, allowed {relative * 10:.3g}"
    )


def assert_close_values(found, expected, *, relative, absolute=0.0, what=""):
    found, expected = (float(x.detach() if isinstance(x, torch.Tensor) else x) for x in (found, expected))
    allowed = relative * abs(expected) + absolute
    assert abs(found - expected) <= allowed, f"{what}: {found!r}, expected {expected!r} within {allowed:.3g}"


def value_and_grad(function, pred, *args, **kwargs):
    """Loss (a tensor, or the total of an Objective) and its gradient with respect to a copy of pred."""
    pred = pred.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    result = function(pred, *args, **kwargs)
    value = result if isinstance(result, torch.Tensor) else result[0]
    (gradient,) = torch.autograd.grad(value, pred)
    return value.detach(), gradient


def hinge_and_grad(dtype, pred, target, weight, **keywords):
    """structloss.ranking_hinge of rows in this dtype: the loss, and its gradient."""
    weight = None if weight is None else weight.to(dtype)
    return value_and_grad(structloss.ranking_hinge, pred.to(dtype), target.to(dtype), weight=weight, **keywords)
