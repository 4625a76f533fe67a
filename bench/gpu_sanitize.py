"""A few small calls of a fused backend that go through all its kernels: what compute-sanitizer watches.

    compute-sanitizer --tool memcheck python -m bench.gpu_sanitize

No time is measured. The most telling calls come first; after --seconds no further one begins.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator

import torch

import structloss

WITHOUT_SKELETON = [name for name, term in structloss.TERMS.items() if not term.needs_skeleton]


def poses(*shape: int, dtype: torch.dtype, device: str) -> tuple[torch.Tensor, ...]:
    """Predicted and true poses with ties, and weights with zeros; made on the CPU, to launch few other kernels."""
    generator = torch.Generator().manual_seed(0)

    def normal() -> torch.Tensor:
        return (8 * torch.randn(*shape, 3, generator=generator)).round() / 16

    weight = torch.rand(shape, generator=generator)
    found = normal(), normal(), weight * (weight > 0.2)
    return tuple(x.to(device=device, dtype=dtype) for x in found)


def cases(backend: str, device: str) -> Iterator[tuple[str, Callable[[], torch.Tensor]]]:
    """(what, the call, which returns what is then checked to be finite)."""
    every = dict.fromkeys(structloss.TERMS, 1.0)
    without = dict.fromkeys(WITHOUT_SKELETON, 1.0)

    def objective(weights: dict, *shape: int, dtype=torch.float32, weighted=False, **keywords) -> torch.Tensor:
        pred, target, weight = poses(*shape, dtype=dtype, device=device)
        keywords |= {"backend": backend, "weight": weight if weighted else None}
        found = structloss.objective(pred.requires_grad_(), target, weights, **keywords)
        (gradient,) = torch.autograd.grad(found.total, pred)
        with torch.no_grad():
            again = structloss.objective(pred, target, weights, **keywords).total
        return gradient.sum() + found.total.detach() + again

    def hinge(rows: int, length: int, dtype: torch.dtype, weighted: bool) -> torch.Tensor:
        pred, target, weight = poses(rows, length, dtype=dtype, device=device)
        depths = pred[..., 2].detach().requires_grad_()
        value = structloss.ranking_hinge(
            depths, target[..., 2], weight=weight if weighted else None, reduction="sum", backend=backend
        )
        return torch.autograd.grad(value, depths)[0].sum() + value.detach()

    def parts(size: int, dtype: torch.dtype) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        near = torch.eye(2, 3) + 0.1 * torch.randn(2, 18, 2, 3, generator=generator)
        matrices = near.to(device=device, dtype=dtype).requires_grad_()
        images = structloss.render_parts(matrices, "natural", size, backend)
        return torch.autograd.grad(images.square().sum(), matrices)[0].sum()

    types = (torch.float32, torch.bfloat16, torch.float64, torch.float16)
    for size, dtype in ((64, types[0]), (33, types[0]), (64, types[2])):
        yield f"parts of {size} pixels, {dtype}", lambda s=size, d=dtype: parts(s, d)
    for frames in (243, 27, 1500, 1024):
        for weighted in (False, True):
            yield (
                f"all terms, T = {frames}, weights {weighted}",
                lambda t=frames, w=weighted: objective(every, 2, t, 17, weighted=w),
            )
    for dtype in types[1:]:
        for frames in (27, 1500):
            yield (
                f"all terms, T = {frames}, {dtype}",
                lambda t=frames, d=dtype: objective(every, 2, t, 17, dtype=d, weighted=True),
            )
    for joints in (133, 1, 256):
        yield (
            f"terms without a skeleton, J = {joints}",
            lambda j=joints: objective(without, 2, 33, j, weighted=True, reduction="sum"),
        )
    yield "all terms of 133 joints", lambda: objective(every, 2, 27, 133, skeleton="h3wb", weighted=True)
    for rows, length in ((5, 17), (3, 243), (2, 1500), (2, 5000)):
        for dtype in types[:3]:
            yield (
                f"ranking_hinge of {rows} x {length}, {dtype}",
                lambda r=rows, n=length, d=dtype: hinge(r, n, d, weighted=d != torch.float32),
            )
    for frames in (1, 2, 32, 257, 2049):
        yield f"all terms, T = {frames}", lambda t=frames: objective(every, 1, t, 17)
    yield "seven-joint clips", lambda: objective(without, 3, 40, 7)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="bench.gpu_sanitize", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backend", default="cuda")
    parser.add_argument("--seconds", type=float, default=60.0, help="no call begins later, default 60")
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args()
    begin, done, everything = time.monotonic(), 0, list(cases(args.backend, args.device))
    for what, call in everything:
        if time.monotonic() - begin > args.seconds:
            break
        if not torch.isfinite(call()).item():
            print(f"not finite: {what}", flush=True)
            return 1
        done += 1
    print(f"{done} of {len(everything)} calls of {args.backend}", flush=True)
    return 0 if done else 1


if __name__ == "__main__":
    sys.exit(main())
