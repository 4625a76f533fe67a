"""Literal float64 definitions with every pair spelled out: the oracle of the operator tests. Imports no structloss."""

import torch


def ranking_hinge_rows(pred, target, weight=None):
    """Unreduced hinge of rows [..., N]: sum over i, j of w_i w_j [target_i < target_j] max(0, pred_i - pred_j)."""
    difference = pred.unsqueeze(-1) - pred.unsqueeze(-2)
    wrong_if_positive = target.unsqueeze(-1) < target.unsqueeze(-2)
    hinge = torch.maximum(difference, torch.zeros_like(difference)) * wrong_if_positive
    if weight is not None:
        hinge = hinge * weight.unsqueeze(-1) * weight.unsqueeze(-2)
    return hinge.sum((-2, -1))


def ranking_hinge(pred, target, weight=None, reduction="mean"):
    total = ranking_hinge_rows(pred, target, weight).sum()
    if reduction == "sum":
        return total
    if weight is None:
        pairs = torch.tensor(float(pred.numel() * pred.shape[-1]), dtype=torch.float64)
    else:
        pairs = (weight.unsqueeze(-1) * weight.unsqueeze(-2)).sum()
    return total / pairs if pairs > 0 else total * 0


def depth_ranking(pred, target, over, weight=None, reduction="mean"):
    rows = [pred[..., 2], target[..., 2], weight]
    if over == "frames":
        rows = [None if x is None else x.transpose(-1, -2) for x in rows]
    return ranking_hinge(*rows, reduction)


def ranking_hinge_by_blocks(pred, target, block=256, weight=None):
    """Value and gradient of the unreduced hinge of one long row [N], a block of pairs at a time; weight [N]."""
    gradient = torch.zeros_like(pred)
    value = torch.zeros((), dtype=pred.dtype)
    for start in range(0, pred.numel(), block):
        p, d = pred[start : start + block, None], target[start : start + block, None]
        share = ((p > pred) + 0.5 * (p == pred)) * (d < target)
        if weight is not None:
            share = share * weight[start : start + block, None] * weight
        value += ((p - pred) * share).sum()
        gradient[start : start + block] += share.sum(1)
        gradient -= share.sum(0)
    return value, gradient


def mpjpe(pred, target, weight=None, reduction="mean"):
    error = torch.linalg.vector_norm(pred - target, dim=-1)
    if weight is None:
        return error.mean() if reduction == "mean" else error.sum()
    total = (error * weight).sum()
    return total if reduction == "sum" else total / weight.sum()


def objective(pred, target, weights, weight=None, reduction="mean"):
    functions = {
        "mpjpe": lambda: mpjpe(pred, target, weight, reduction),
        "depth_ranking_joints": lambda: depth_ranking(pred, target, "joints", weight, reduction),
        "depth_ranking_frames": lambda: depth_ranking(pred, target, "frames", weight, reduction),
    }
    terms = {name: functions[name]() for name in weights}
    return sum(weights[name] * value for name, value in terms.items()), terms
