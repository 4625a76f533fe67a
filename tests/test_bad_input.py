"""Bad input of the operators: one sentence that names the argument, what was found and what was expected."""

import pytest
import torch

import structloss
from structloss.errors import ArgumentError, BackendError, DtypeError, UnknownNameError

P = torch.zeros(2, 9, 17, 3)
W = {"mpjpe": 1.0}
M = torch.zeros(4, 18, 2, 3)
G = torch.ones(18, 6)  # a template of 18 parts


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
        (lambda: structloss.objective(P, None, {"bone_symmetry": 1.0, "velocity": 1.0}), ArgumentError, "target is None, expected poses, since the term 'velocity'"),
        (lambda: structloss.objective(P, P[:1], {"bone_symmetry": 1.0}), ArgumentError, r"target has shape \[1, 9, 17, 3\]"),
        (lambda: structloss.objective(P[0, 0], None, {"bone_symmetry": 1.0}), ArgumentError, r"pred has shape \[17, 3\], expected \[\.\.\., T, J, 3\]"),
        (lambda: structloss.velocity(P, None), DtypeError, "target is a NoneType, expected a floating-point tensor"),
        (lambda: structloss.limb_length(P, P[:1]), ArgumentError, r"target has shape \[1, 9, 17, 3\], expected \[2, 9, 17, 3\]"),
        (lambda: structloss.bone_symmetry(None), DtypeError, "pred is a NoneType, expected a floating-point tensor"),
        (lambda: structloss.bone_symmetry(P.long()), DtypeError, "pred has dtype torch.int64"),
        (lambda: structloss.bone_symmetry(P, reduction="none"), ArgumentError, "reduction is 'none'"),
        (lambda: structloss.bone_symmetry(P, weight=torch.ones(2, 9, 16)), ArgumentError, r"weight has shape \[2, 9, 16\]"),
        (lambda: structloss.limb_variance(P, weight=-torch.ones(17)), ArgumentError, "weight has the value -1, expected values >= 0"),
        (lambda: structloss.illegal_angle(P * torch.nan, check_finite=True), ArgumentError, "pred has 918 NaN or infinite"),
        # skeletons
        (lambda: structloss.bone_ratio(P, skeleton="h36"), UnknownNameError, "unknown skeleton 'h36': did you mean 'h36m'"),
        (lambda: structloss.bone_ratio(P, skeleton=17), UnknownNameError, "unknown skeleton 17: expected one of h36m"),
        (lambda: structloss.limb_variance(P, skeleton="mpii"), ArgumentError, r"pred has shape \[2, 9, 17, 3\], expected 16 joints, those of the skeleton 'mpii'"),
        (lambda: structloss.bone_angle(P[..., 1:, :], P[..., 1:, :]), ArgumentError, "expected 17 joints, those of the skeleton 'h36m', for the term 'bone_angle'"),
        (
            lambda: structloss.objective(P[..., 1:, :], P[..., 1:, :], {"mpjpe": 1.0, "limb_length": 1.0}),
            ArgumentError,
            "expected 17 joints, those of the skeleton 'h36m', for the term 'limb_length'",
        ),
        (lambda: structloss.bone_symmetry(P, skeleton="coco", pairs="six"), ArgumentError, "pairs is 'six', expected 'four' or 'all' for the skeleton 'coco', which has no girdle"),
        (
            lambda: structloss.objective(P, None, {"bone_symmetry": 1.0}, skeleton="coco", options={"bone_symmetry": {"pairs": "six"}}),
            ArgumentError,
            "pairs is 'six', expected 'four' or 'all'",
        ),
        # options
        (lambda: structloss.bone_symmetry(P, pairs="five"), ArgumentError, "pairs is 'five', expected one of 'four', 'six', 'all'"),
        (lambda: structloss.bone_symmetry(P, pairs=6), ArgumentError, "pairs is 6, expected one of"),
        (lambda: structloss.bone_symmetry(P, squared=1), ArgumentError, "squared is 1, expected True or False"),
        (lambda: structloss.bone_angle(P, P, pairs="four"), ArgumentError, "pairs is 'four', expected one of 'published', 'all'"),
        (lambda: structloss.bone_angle_velocity(P, P, pairs="six"), ArgumentError, "pairs is 'six', expected one of 'published', 'all'"),
        (lambda: structloss.bone_ratio(P, form="ratio"), ArgumentError, "form is 'ratio', expected one of 'code', 'paper'"),
        (lambda: structloss.illegal_angle(P, tolerance=-0.1), ArgumentError, "tolerance is -0.1, expected a finite number >= 0"),
        (lambda: structloss.illegal_angle(P, tolerance=float("nan")), ArgumentError, "tolerance is nan, expected a finite number"),
        (lambda: structloss.illegal_angle(P, tolerance="0"), ArgumentError, "tolerance is '0', expected a finite number"),
        (lambda: structloss.illegal_angle(P, tolerance=torch.ones(2, 2)), ArgumentError, "expected a finite number >= 0"),
        (lambda: structloss.illegal_angle(P, scale=0), ArgumentError, "scale is 0, expected a finite number > 0"),
        (lambda: structloss.illegal_angle(P, scale=-1e-3), ArgumentError, "scale is -0.001, expected a finite number > 0"),
        (lambda: structloss.illegal_angle(P, scale=float("inf")), ArgumentError, "scale is inf, expected a finite number > 0"),
        (lambda: structloss.illegal_angle(P, scale=1e150), ArgumentError, r"scale is 1e\+150, expected"),  # its cube overflows
        (lambda: structloss.illegal_angle(P, normalize_bones="yes"), ArgumentError, "normalize_bones is 'yes', expected True or False"),
        (lambda: structloss.illegal_angle(P, handedness="both"), ArgumentError, "handedness is 'both', expected one of 'right', 'left'"),
        (lambda: structloss.weighted_mpjpe(P, P, joint_weight=[1.0] * 16), ArgumentError, "joint_weight has 16 numbers, expected 17, one per joint"),
        (lambda: structloss.weighted_mpjpe(P, P, joint_weight=[]), ArgumentError, "joint_weight has 0 numbers, expected 17, one per joint"),
        (lambda: structloss.weighted_mpjpe(P, P, joint_weight=[1.0, -2.0] * 8 + [1.0]), ArgumentError, r"joint_weight\[1\] is -2.0, expected a finite number >= 0"),
        (lambda: structloss.weighted_mpjpe(P, P, joint_weight=2.0), ArgumentError, "joint_weight is a float, expected one number >= 0 per joint"),
        (lambda: structloss.weighted_mpjpe(P, P, joint_weight=torch.tensor(1.0)), ArgumentError, "joint_weight is a Tensor, expected one number >= 0 per joint"),
        (lambda: structloss.weighted_mpjpe(P, P, joint_weight="heavy"), ArgumentError, "joint_weight is a str"),
        (lambda: structloss.weighted_mpjpe(P, P, joint_weight=torch.ones(17, 1)), ArgumentError, "joint_weight"),
        (lambda: structloss.temporal_consistency(P, joint_weight=torch.ones(18)), ArgumentError, "joint_weight has 18 numbers, expected 17, one per joint"),
        (lambda: structloss.objective(P, P, W, options="six"), ArgumentError, "options is a str, expected a mapping from term names to mappings"),
        (lambda: structloss.objective(P, P, W, options=[]), ArgumentError, "options is a list, expected a mapping from term names to mappings"),
        (lambda: structloss.objective(P, P, W, options={"mpjpe": "six"}), ArgumentError, r"options\['mpjpe'\] is a str, expected a mapping"),
        (lambda: structloss.objective(P, P, W, options={"mpjpe": {"scale": 1}}), ArgumentError, r"options\['mpjpe'\] has the key 'scale', expected none"),
        (lambda: structloss.objective(P, P, W, options={"velocity": {}}), ArgumentError, "options has the key 'velocity', expected one of the terms in weights: mpjpe"),
        (lambda: structloss.objective(P, P, W, options={"velocty": {}}), UnknownNameError, "unknown term 'velocty': did you mean 'velocity'"),
        (
            lambda: structloss.objective(P, P, {"bone_symmetry": 1.0}, options={"bone_symmetry": {"pair": "six"}}),
            UnknownNameError,
            "unknown option of bone_symmetry 'pair': did you mean 'pairs'",
        ),
        (
            lambda: structloss.objective(P, P, {"illegal_angle": 1.0}, options={"illegal_angle": {"tolerance": -1}}),
            ArgumentError,
            r"options\['illegal_angle'\]\['tolerance'\] is -1, expected a finite number >= 0",
        ),
        (
            lambda: structloss.objective(P, P, {"weighted_mpjpe": 1.0}, options={"weighted_mpjpe": {"joint_weight": [1.0]}}),
            ArgumentError,
            r"options\['weighted_mpjpe'\]\['joint_weight'\] has 1 numbers, expected 17, one per joint",
        ),
        # modules complain when they are made
        (lambda: structloss.nn.Objective({"bone_symmetry": 1.0}, options={"bone_symmetry": {"pairs": "five"}}), ArgumentError, r"options\['bone_symmetry'\]\['pairs'\] is 'five'"),
        (lambda: structloss.nn.Objective(W, options={"velocity": {}}), ArgumentError, "options has the key 'velocity', expected one of the terms in weights"),
        (lambda: structloss.nn.BoneSymmetry(pairs="five"), ArgumentError, "pairs is 'five', expected one of 'four', 'six', 'all'"),
        (lambda: structloss.nn.BoneSymmetry(skeleton="coc"), UnknownNameError, "unknown skeleton 'coc': did you mean 'coco'"),
        (lambda: structloss.nn.IllegalAngle(scale=0.0), ArgumentError, "scale is 0.0, expected a finite number > 0"),
        (lambda: structloss.nn.WeightedMPJPE(joint_weight=2.0), ArgumentError, "joint_weight is a float"),
        (lambda: structloss.nn.Velocity(reduction="median"), ArgumentError, "reduction is 'median', expected one of 'mean', 'sum'"),
        (lambda: structloss.nn.LearnedWeights([]), ArgumentError, "weights is empty"),
        (lambda: structloss.nn.LearnedWeights("mpjpe"), ArgumentError, "weights is a str, expected a mapping"),
        (lambda: structloss.nn.LearnedWeights(["mpjp"]), UnknownNameError, "unknown term 'mpjp': did you mean 'mpjpe'"),
        (lambda: structloss.nn.LearnedWeights({"mpjpe": 0.0}), ArgumentError, r"weights\['mpjpe'\] is 0.0, expected a finite number > 0"),
        (lambda: structloss.nn.LearnedWeights({"mpjpe": torch.tensor(1.0)}), ArgumentError, r"weights\['mpjpe'\] is"),
        (lambda: structloss.nn.LearnedWeights(W, options={"mpjpe": {"scale": 1}}), ArgumentError, r"options\['mpjpe'\] has the key 'scale'"),
        (lambda: structloss.use_backend("numpy"), UnknownNameError, "unknown backend 'numpy'"),
        (lambda: structloss.render_parts([1.0]), DtypeError, "matrices is a list, expected a floating-point tensor"),
        (lambda: structloss.render_parts(M.long()), DtypeError, "matrices has dtype torch.int64, expected a floating-point"),
        (lambda: structloss.render_parts(M.to_sparse()), ArgumentError, "matrices has the layout torch.sparse_coo, expected a dense"),
        (lambda: structloss.render_parts(M[0, 0]), ArgumentError, r"matrices has shape \[2, 3\], expected \[\.\.\., P, 2, 3\]"),
        (lambda: structloss.render_parts(M.mT), ArgumentError, r"matrices has shape \[4, 18, 3, 2\], expected \[\.\.\., P, 2, 3\]"),
        (lambda: structloss.render_parts(M[:, :17]), ArgumentError, r"matrices has shape \[4, 17, 2, 3\], expected \[\.\.\., 18, 2, 3\], one"),
        (lambda: structloss.render_parts(M, G[:5]), ArgumentError, r"matrices has shape \[4, 18, 2, 3\], expected \[\.\.\., 5, 2, 3\], one"),
        (lambda: structloss.render_parts(M, "arms down"), UnknownNameError, "unknown shape template 'arms down': expected one of original, natural"),
        (lambda: structloss.render_parts(M, None), ArgumentError, "template is None, expected one of the templates 'original', 'natural' or"),
        (lambda: structloss.render_parts(M, G[:, :5]), ArgumentError, r"template has shape \[18, 5\], expected \[P, 6\]"),
        (lambda: structloss.render_parts(M, G.long()), DtypeError, "template has dtype torch.int64, expected a floating-point dtype"),
        (lambda: structloss.render_parts(M, G.to("meta")), ArgumentError, "template is on meta, expected cpu, where matrices is"),
        (lambda: structloss.render_parts(M, G.clone().requires_grad_()), ArgumentError, "template requires grad, expected one that doesn't"),
        (lambda: structloss.render_parts(M, G / 0), ArgumentError, "template has NaN or infinite values, expected finite ones"),
        (lambda: structloss.render_parts(M, G - 1), ArgumentError, "template has the scale 0, expected scales > 0"),
        (lambda: structloss.render_parts(M, size=0), ArgumentError, "size is 0, expected a whole number of pixels from 1 to 8192"),
        (lambda: structloss.render_parts(M, size=2.5), ArgumentError, "size is 2.5, expected a whole number of pixels"),
        (lambda: structloss.render_parts(M, size=True), ArgumentError, "size is True, expected a whole number of pixels"),
        (lambda: structloss.render_parts(M, size=10**9), ArgumentError, "size is 1000000000, expected a whole number of pixels"),
        (lambda: structloss.render_parts(M, backend="gpu"), UnknownNameError, "unknown backend 'gpu': expected one of auto, torch"),
    ],
)  # fmt: skip
def test_message(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text and text.endswith((".", "?"))


def test_terms_without_joints_of_a_body_ignore_the_skeleton():
    assert structloss.objective(P[..., :5, :], P[..., :5, :], W, skeleton="h3wb").total == 0


def test_errors_are_the_builtin_ones_too():
    with pytest.raises(ValueError):
        structloss.mpjpe(P, P[:1])
    with pytest.raises(TypeError):
        structloss.mpjpe(P.long(), P)
    with pytest.raises(KeyError):
        structloss.objective(P, P, {"nothing": 1.0})
