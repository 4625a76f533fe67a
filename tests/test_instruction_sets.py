"""Rows side by side, one a SIMD lane: every instruction set gives the pairwise definition, and the same bits."""

import json
import os
import subprocess
import sys

import pytest
import torch
from backends import CPP
from compare import assert_close_gradients, assert_close_values, hinge_and_grad, value_and_grad
from reference import pairwise

SETS = ("plain", "avx2", "avx512")
RELATIVE = {torch.float64: 1e-12, torch.float32: 1e-5}


def near(n, rows):  # closer than a code tells apart, and ties
    return 1 + 1e-7 * torch.randn(rows, n, dtype=torch.float64).round()


def crowded(n, rows):  # one value takes all codes but one
    x = torch.randn(rows, n, dtype=torch.float64)
    x[:, n // 2] = 1e30
    return x


KINDS = {
    "normal": lambda n, rows: torch.randn(rows, n, dtype=torch.float64),
    "near": near,
    "crowded": crowded,
    "constant": lambda n, rows: torch.full((rows, n), 0.25, dtype=torch.float64),
    "few values": lambda n, rows: (8 * torch.rand(rows, n, dtype=torch.float64)).floor(),
    "signed zeros": lambda n, rows: torch.where(torch.rand(rows, n) < 0.5, 0.0, -0.0).double(),
    "subnormal": lambda n, rows: 1e-42 * (50 * torch.randn(rows, n, dtype=torch.float64)).round(),
}
LENGTHS = (1, 2, 8, 9, 17, 33, 81, 243, 256, 257, 513, 1024)
LEAST = 2.0**-149  # the smallest float32


@pytest.mark.parametrize("backend", [CPP])
@pytest.mark.parametrize(
    ("kind_p", "kind_d"),
    sorted(
        {pair for kind in KINDS for pair in ((kind, kind), (kind, "normal"), ("normal", kind), ("few values", kind))}
    ),
)
def test_rows_are_the_pairwise_definition(kind_p, kind_d, backend):
    torch.manual_seed(0)
    for n in LENGTHS:
        rows = 2 if n > 300 else 19  # full vectors and lanes to spare
        # Values of float32, so that both dtypes see the same ties.
        pred, target = KINDS[kind_p](n, rows).float(), KINDS[kind_d](n, rows).float()
        mask = (torch.rand(rows, n) < 0.7).float()
        for weight in (None, mask, mask * torch.rand(rows, n)):
            wide = None if weight is None else weight.double()
            value, gradient = value_and_grad(pairwise.ranking_hinge, pred.double(), target.double(), wide, "sum")
            # What the dot product of the gradient and the predictions rounds away, in float64 for every dtype.
            spread = pred.double() - pred.double().amin(-1, keepdim=True)
            rounding = 2.0**-50 * float((spread * gradient.abs()).sum())
            for dtype, relative in RELATIVE.items():
                found, found_gradient = hinge_and_grad(dtype, pred, target, weight, reduction="sum", backend="cpp")
                what = f"{n} {dtype}"
                assert_close_values(found, value, relative=relative, absolute=rounding + LEAST, what=what)
                if weight is None or weight is mask:  # the numbers of pairs, exactly
                    assert torch.equal(found_gradient.double(), gradient), what
                else:
                    assert_close_gradients(found_gradient, gradient, relative=relative, what=what)


HASHES = """
import hashlib, json, torch, structloss
torch.manual_seed(0)
torch.set_num_threads(1)
found = {}
for dtype in (torch.float32, torch.float64):
    for B, T, J in ((2, 27, 17), (3, 243, 17), (1, 600, 5), (1, 1024, 3), (1, 1500, 2), (2, 9, 40), (1, 3, 133)):
        pred, target = torch.randn(2, B, T, J, 3, dtype=dtype)
        tied = (4 * target).round() / 4
        masked = (torch.rand(B, T, J) < 0.8).to(dtype)
        for name, (p, d, w) in {
            "plain": (pred, target, None), "ties": (tied, tied.flip(1), None), "mask": (pred, tied, masked),
            "weights": (tied, target, masked * torch.rand(B, T, J, dtype=dtype)),
        }.items():
            p = p.clone().requires_grad_()
            terms = {"mpjpe": 1.0, "velocity": 1.0, "depth_ranking_joints": 1.0, "depth_ranking_frames": 1.0}
            result = structloss.objective(p, d, terms, weight=w, backend="cpp")
            result.total.backward()
            numbers = [result.total.detach(), *result.terms.values(), p.grad]
            bits = b"".join(x.contiguous().numpy().tobytes() for x in numbers)
            found[f"{dtype} {B}x{T}x{J} {name}"] = hashlib.sha256(bits).hexdigest()
print(json.dumps(found))
"""


def run_with(name, code):
    environment = os.environ | {"STRUCTLOSS_INSTRUCTION_SET": name}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("backend", [CPP])
def test_every_instruction_set_gives_the_same_bits(backend):
    found = {}
    for name in SETS:
        done = run_with(name, HASHES)
        assert done.returncode == 0, done.stderr
        found[name] = json.loads(done.stdout)
    assert len(found["plain"]) == 56
    for name in SETS[1:]:
        assert found[name] == found["plain"]


@pytest.mark.parametrize("backend", [CPP])
@pytest.mark.parametrize("name", SETS)
def test_every_instruction_set_gives_the_pairwise_definition(name, backend):
    code = f"""
import sys
sys.path.insert(0, {os.path.dirname(__file__)!r})
import torch, structloss
from reference import pairwise
torch.manual_seed(1)
for n in (5, 17, 81, 243, 300, 700):
    for dtype, bound in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        pred, target = torch.randn(2, 9, n, dtype=dtype)
        expected = pairwise.ranking_hinge(pred.double(), target.double())
        value = structloss.functional.ranking_hinge(pred, target, backend="cpp").double()
        assert abs(value - expected) <= bound * expected, (n, dtype, value, expected)
"""
    done = run_with(name, code)
    assert done.returncode == 0, done.stderr


MEMORY = """
import torch, structloss
torch.manual_seed(0)
# Ranks leave keys that are no numbers in the memory that the threads' blocks take next.
terms = {"velocity": 1.0, "temporal_consistency": 1.0, "depth_ranking_frames": 1.0}
for T, J in ((160, 63), (243, 63), (351, 17), (243, 17)):
    pred, target = torch.randn(1, T, J, 3, requires_grad=True), torch.randn(1, T, J, 3)
    found = []
    for threads in (1, *[2] * 10):
        torch.set_num_threads(threads)
        result = structloss.objective(pred, target, terms, backend="cpp")
        found.append([result.total.detach(), *torch.autograd.grad(result.total, pred)])
    for total, grad in found:
        same = torch.equal(total, found[0][0]) and torch.equal(grad, found[0][1])
        assert torch.isfinite(total) and same, (T, J, total)
"""


@pytest.mark.parametrize("backend", [CPP])
def test_threads_that_begin_in_the_middle_of_a_clip_read_nothing_unset(backend):
    done = run_with("avx512", MEMORY)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("backend", [CPP])
def test_an_unknown_instruction_set_is_refused(backend):
    done = run_with("AVX2", "import torch, structloss; structloss.mpjpe(*torch.zeros(2, 1, 2, 17, 3))")
    assert done.returncode != 0
    message = "STRUCTLOSS_INSTRUCTION_SET is 'AVX2', expected 'avx512', 'avx2' or 'plain'."
    assert done.stderr.strip().endswith(f"UnknownNameError: {message}")
    done = run_with("sse", "import sys; from structloss.cli import main; sys.exit(main(['backends']))")
    assert (
        done.returncode == 1 and "STRUCTLOSS_INSTRUCTION_SET is 'sse'" in done.stderr and "Traceback" not in done.stderr
    )


@pytest.mark.parametrize("backend", [CPP])
@pytest.mark.parametrize("name", ["plain", ""])
def test_backends_names_the_instruction_set(name, backend):
    done = run_with(name, "import sys; from structloss.cli import main; sys.exit(main(['backends']))")
    assert ("with no particular instruction set here" in done.stdout) == (name == "plain"), done.stdout
