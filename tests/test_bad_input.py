"""Bad input of the operators: one sentence that names the argument, what was found and what was expected."""

import pytest
import torch

import structloss
from structloss.errors import ArgumentError, BackendError, DtypeError, UnknownNameError

P = torch.zeros(2, 9, 17, 3)
W = {"mpjpe": 1.0}


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: structloss.mpjpe(P, P[:, :8]), ArgumentError, r"target has shape \[2, 8, 17, 3\], expected \[2, 9, 17, 3\]"),
        (lambda: structloss.mpjpe(P[0, 0], P[0, 0]), ArgumentError, r"pred has shape \[17, 3\], expected \[\.\.\., T, J, 3\]"),
        (lambda: structloss.mpjpe(P[..., :2], P[..., :2]), ArgumentError, r"pred has shape \[2, 9, 17, 2\]"),
        (lambda: structloss.mpjpe(P.long(), P), DtypeError, r"pred has dtype torch.int64, expected a floating-point"),
        (lambda: structloss.mpjpe(P, P.int()), DtypeError, r"target has dtype torch.int32"),
        (lambda: structloss.mpjpe(P, [1.0]), DtypeError, r"target is a list, expected a floating-point tensor"),
        (lambda: structloss.mpjpe(P, P.to("meta")), ArgumentError, r"target is on meta, expected cpu, where pred is"),
        (
            lambda: structloss.mpjpe(P, P, weight=torch.full((2, 9, 17), -0.5)),
            ArgumentError,
            r"weight has the value -0.5, expected values >= 0",
        ),
        (lambda: structloss.mpjpe(P, P, weight=torch.full((2, 9, 17), torch.nan)), ArgumentError, "weight has the value nan"),
        (
            lambda: structloss.mpjpe(P, P, weight=torch.ones(2, 9, 16)),
            ArgumentError,
            r"weight has shape \[2, 9, 16\], expected \[2, 9, 17\]",
        ),
        (lambda: structloss.mpjpe(P, P, weight=torch.ones(2, 9, 17, device="meta")), ArgumentError, "weight is on meta"),
        (lambda: structloss.mpjpe(P, P, weight=3.0), DtypeError, "weight is a float, expected a real tensor"),
        (lambda: structloss.mpjpe(P, P, reduction="none"), ArgumentError, "reduction is 'none', expected one of 'mean', 'sum'"),
        (lambda: structloss.mpjpe(P, P.clone().requires_grad_()), ArgumentError, "target requires grad"),
        (lambda: structloss.mpjpe(P, P + torch.inf, check_finite=True), ArgumentError, "target has 918 NaN or infinite"),
        (lambda: structloss.depth_ranking(P, P, over="time"), ArgumentError, "over is 'time', expected one of 'joints', 'frames'"),
        (lambda: structloss.ranking_hinge(torch.tensor(1.0), torch.tensor(1.0)), ArgumentError, r"pred has shape \[\]"),
        (lambda: structloss.objective(P, P, {}), ArgumentError, "weights is empty"),
        (lambda: structloss.objective(P, P, [1.0]), ArgumentError, "weights is a list, expected a mapping"),
        (lambda: structloss.objective(P, P, {"mpjp": 1.0}), UnknownNameError, "unknown term 'mpjp': did you mean 'mpjpe'"),
        (lambda: structloss.objective(P, P, {"mpjpe": -1.0}), ArgumentError, r"weights\['mpjpe'\] is -1.0, expected a finite"),
        (lambda: structloss.objective(P, P, {"mpjpe": float("nan")}), ArgumentError, r"weights\['mpjpe'\] is nan"),
        (lambda: structloss.objective(P, P, {"mpjpe": "1"}), ArgumentError, r"weights\['mpjpe'\] is a str"),
        (lambda: structloss.objective(P, P, {"mpjpe": torch.ones(2)}), ArgumentError, r"weights\['mpjpe'\] has shape \[2\]"),
        (lambda: structloss.objective(P, None, W), ArgumentError, "target is None, expected poses, since the term 'mpjpe'"),
        (lambda: structloss.objective(P, P, W, skeleton="h36"), UnknownNameError, "unknown skeleton 'h36': did you mean 'h36m'"),
        (lambda: structloss.objective(P, P, W, backend="cpu"), UnknownNameError, "unknown backend 'cpu'"),
        (lambda: structloss.objective(P, P, W, backend="cuda"), BackendError, "backend 'cuda' can't serve this call"),
        (lambda: structloss.use_backend("numpy"), UnknownNameError, "unknown backend 'numpy'"),
    ],
)  # fmt: skip
def test_message(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text and text.endswith((".", "?"))


def test_errors_are_the_builtin_ones_too():
    with pytest.raises(ValueError):
        structloss.mpjpe(P, P[:1])
    with pytest.raises(TypeError):
        structloss.mpjpe(P.long(), P)
    with pytest.raises(KeyError):
        structloss.objective(P, P, {"nothing": 1.0})
