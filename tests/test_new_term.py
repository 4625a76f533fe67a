"""What a new loss term takes: the edits of `EDITS`, and nothing else, make it run on every backend.

The edits add `squared_error`, a made-up term, to a copy of the sources. They are the recipe of docs/adding.md.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[1]


class Edit(NamedTuple):
    """Put `new` in the place of `old`, which is in the file once."""

    file: str
    old: str
    new: str


def before(file, place, text):
    """Insert `text` before something that is in the file once."""
    return Edit(file, place, text + place)


EDITS = [
    # 1. The table: its place is the term's number in Triton and in Python.
    before(
        "structloss/terms.py",
        ")\n\nTERMS: Mapping",
        """\
    Term(
        name="squared_error",
        symbol="squared error",
        source="made up",
        needs_target=True,
        formula="squared distance between predicted and target joint",
        denominator=Denominator.JOINT_WEIGHTS,
    ),
""",
    ),
    # 2. The same table for C++ and CUDA.
    before("csrc/params.h", "  kTermCount\n", "  kSquaredError,\n"),
    before(
        "csrc/params.h",
        "};\n\nconstexpr bool traits_in_order",
        """\
    {kSquaredError, "squared_error", true, true, Form::frame, false, GpuKernel::frames, Denominator::joint_weights},
""",
    ),
    # 3. Its formula for both: the sum over a frame, and `scale` times its gradient.
    before(
        "csrc/terms.hpp",
        "template <class A>\nSL_FUNCTION typename A::V n_mpjpe",
        """\
template <class A>
SL_FUNCTION typename A::V squared_error(A& a, int64_t J, double scale, bool need_grad) {
  using V = typename A::V;
  V sum = constant<V>(0);
  for (int64_t j = 0; j < J; ++j) {
    const Vec3<V> g = weighted_square(a.pred(j) - a.target(j), a.weight(j), constant<V>(2 * scale), sum);
    if (need_grad) a.add(j, g);
  }
  return sum;
}

""",
    ),
    before(
        "csrc/terms.hpp",
        "  } else {\n    static_assert(kTerm == kTermCount",
        """\
  } else if constexpr (kTerm == kSquaredError) {
    return squared_error(a, J, scale, need_grad);
""",
    ),
    # 4. Its share of a joint in Triton.
    before(
        "kernels/triton_joints.py",
        "VELOCITY, TEMPORAL_CONSISTENCY = ",
        """\
(SQUARED_ERROR,) = term_numbers("squared_error")
""",
    ),
    before(
        "kernels/triton_joints.py",
        "@triton.jit\ndef _motion_share",
        """\
@triton.jit
def _squared_share(
    pred, target, p_at, d_at, pred_stride_c, target_stride_c, scales, partials, blocks, block,
    gx, gy, gz, w, mask, present, DTYPE: tl.constexpr,
):  # fmt: skip
    px, py, pz = load_point(pred, p_at, pred_stride_c, present, DTYPE)
    dx, dy, dz = load_point(target, d_at, target_stride_c, present, DTYPE)
    ex, ey, ez = px - dx, py - dy, pz - dz
    _put(partials, SQUARED_ERROR, blocks, block, w * dot(ex, ey, ez, ex, ey, ez), mask)
    slope = 2 * tl.load(scales + SQUARED_ERROR).to(DTYPE) * w
    return gx + slope * ex, gy + slope * ey, gz + slope * ez


""",
    ),
    before(
        "kernels/triton_joints.py",
        "    # A body; each kind has its rows",
        """\
    if ((BIT << SQUARED_ERROR) & TERMS) != 0:
        gx, gy, gz = _squared_share(
            pred, target, p_at + here, d_at + there, pred_stride_c, target_stride_c, scales, partials, blocks, block,
            gx, gy, gz, w, mask, present, DTYPE,
        )  # fmt: skip

""",
    ),
    # 5. Its PyTorch form: the sum and its gradient, before any division.
    before("structloss/ops/torch_terms/position.py", '"weighted_mpjpe"]', '"squared_error", '),
    before(
        "structloss/ops/torch_terms/position.py",
        "def n_mpjpe",
        """\
def squared_error(x: TermInput) -> tuple[Tensor, Tensor]:
    weight, difference = x.weight_or_one(), x.wide_pred - x.wide_target
    return (weight * difference.square().sum(-1)).sum(), 2 * weight.unsqueeze(-1) * difference


""",
    ),
    # 6. The public function.
    before("structloss/functional/position.py", '"weighted_mpjpe"]', '"squared_error", '),
    before(
        "structloss/functional/position.py",
        "def n_mpjpe",
        """\
def squared_error(
    pred: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    reduction: str = "mean",
    check_finite: bool = False,
    backend: str | None = None,
) -> Tensor:
    return single("squared_error", pred, target, weight, reduction, check_finite, backend)


""",
    ),
    # 7. `structloss.squared_error`.
    before("structloss/__init__.py", "        temporal_consistency,\n", "        squared_error,\n"),
    before("structloss/__init__.py", '    "temporal_consistency",\n', '    "squared_error",\n'),
    # 8. The module.
    before("structloss/nn/terms.py", '    "TemporalConsistency",\n', '    "SquaredError",\n'),
    before(
        "structloss/nn/terms.py",
        "class Velocity(",
        """\
class SquaredError(_TargetLoss):
    function = functional.squared_error


""",
    ),
    # 9. The literal definition that all of the above are compared with.
    before(
        "tests/reference/terms.py",
        "def n_mpjpe",
        """\
def squared_error(pred, target, weight=None, reduction="mean"):
    pred, target, w = present(pred, target, weight)
    return reduced((w * ((pred - target) ** 2).sum(-1)).sum(), w.sum(), reduction)


""",
    ),
    before("tests/reference/terms.py", "    )\n}  # fmt: skip\nOF_A_BODY", "        squared_error,\n"),
    # 10. Its cases, with every option; its weight among all terms; its module.
    before("tests/test_terms.py", '    "n_mpjpe": ("n_mpjpe", {}),\n', '    "squared_error": ("squared_error", {}),\n'),
    before("tests/test_terms.py", "}\nALL_OPTIONS", '    "squared_error": 0.4,\n'),
    before("tests/test_terms.py", '    "n_mpjpe": "NMPJPE",\n', '    "squared_error": "SquaredError",\n'),
    # 11. A line for the reader.
    before(
        "docs/depth_ranking.md",
        "| `n_mpjpe` |",
        "| `squared_error` | yes | of the poses, squared | | made up |\n",
    ),
]
FILES = sorted({edit.file for edit in EDITS})
COPIED = ("structloss", "kernels", "csrc", "tests", "docs", "pyproject.toml")

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")


def copied(folder, *names):
    """The sources in another folder, the kernels a part of the package as where they are installed."""
    for name in names:
        source = REPOSITORY / name
        if source.is_file():
            shutil.copy2(source, folder / name)
        else:
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "golden", "*.so"))
    if "kernels" in names:
        (folder / "structloss" / "kernels").symlink_to(folder / "kernels", target_is_directory=True)
    return folder


def apply(edit, folder):
    path = folder / edit.file
    text = path.read_text(encoding="utf-8")
    assert text.count(edit.old) == 1, f"{edit.file} has {edit.old!r} {text.count(edit.old)} times, expected once"
    path.write_text(text.replace(edit.old, edit.new), encoding="utf-8")


# The emulated GPU of the copy: compiling it well takes longer than these few tests do without.
NOT_OPTIMISED = Edit("tests/backends.py", '"-O2"', '"-O0"')


def start_of_build(folder):
    """Processes that compile the CPU module, not optimised: most of this test's time would be the compiler's."""
    # torch brings pybind11's headers.
    headers = (sysconfig.get_paths()["include"], Path(torch.__file__).parent / "include")
    command = ["g++", "-std=c++17", "-O0", "-fPIC", "-fvisibility=hidden", "-Wno-psabi", "-fno-math-errno"]
    command += ["-fno-trapping-math", "-ffp-contract=off", *(f"-I{path}" for path in headers)]
    return [
        subprocess.Popen([*command, "-c", str(source), "-o", str(folder / f"{source.stem}.o")])
        for source in sorted((folder / "csrc" / "cpu").glob("*.cpp"))
    ]


def end_of_build(folder, processes):
    failed = [process.args for process in processes if process.wait() != 0]
    assert not failed
    module = folder / "kernels" / f"_cpu{sysconfig.get_config_var('EXT_SUFFIX')}"
    objects = map(str, sorted(folder.glob("*.o")))
    subprocess.run(["g++", "-shared", *objects, "-o", str(module)], check=True)


def pytest_in(folder, *arguments, **environment):
    """Run tests of the copy, with the copy's package; names of those that passed, which are all."""
    # Without site, an editable install does not come before it.
    path = os.pathsep.join([str(folder), *(entry for entry in sys.path if entry.endswith("-packages"))])
    keep = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "STRUCTLOSS_"))}
    done = subprocess.run(
        [sys.executable, "-S", "-m", "pytest", "-v", "-v", "--tb=short", *arguments],
        env={**keep, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environment},
        cwd=folder,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        pytest.fail(done.stdout[-8000:] + done.stderr[-2000:], pytrace=False)
    assert " skipped" not in done.stdout, done.stdout
    return re.findall(r"::(\S+) PASSED", done.stdout)


@pytest.mark.slow(seconds=60)
@needs_compiler
def test_a_new_term_runs_on_every_backend_and_takes_a_dozen_files(tmp_path):
    assert len(FILES) <= 12
    folder = copied(tmp_path, *COPIED)
    for edit in (*EDITS, NOT_OPTIMISED):
        apply(edit, folder)
    build = start_of_build(folder)
    end_of_build(folder, build)
    # Alone, with weights and without, and among all terms; on PyTorch, C++ and the emulated GPU.
    passed = pytest_in(
        folder,
        *("tests/test_terms.py", "tests/test_backends.py", "tests/test_docs.py", "-k"),
        "squared_error or cover_every or test_all_terms_at_once_for_any_number_of_frames and (5- or 33-) "
        "or term_tables or numbers_terms or every_term_is_described",
    )
    for backend in ("torch", "cpp", "cuda"):
        assert f"test_against_the_definition[squared_error-random-real-{backend}]" in passed
        assert f"test_all_terms_at_once_for_any_number_of_frames[33-{backend}]" in passed
    assert "test_the_cases_cover_every_term_and_option" in passed
    assert "test_the_term_tables_of_python_and_cpp_are_one" in passed
    # And in Triton.
    passed = pytest_in(
        folder, "tests/test_triton.py", "-k", "squared_error or test_all_terms_at_once", TRITON_INTERPRET="1"
    )
    assert any("test_every_term[squared_error]" in name for name in passed), passed
    assert any("test_all_terms_at_once[33-real]" in name for name in passed), passed


# ---- what must not be forgotten is told by the compiler -----------------------------------------------------------


def compile_errors(folder):
    """What the compiler says to the GPU's sources."""
    command = ["g++", "-std=c++17", "-fsyntax-only", "-x", "c++", str(folder / "csrc/cuda/objective.cu")]
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr


@needs_compiler
def test_a_row_or_a_formula_that_is_missing_is_told(tmp_path):
    folder = copied(tmp_path, "csrc")
    number, row, _, formula = [edit for edit in EDITS if edit.file.startswith("csrc/")]
    apply(number, folder)
    assert "a term's row in kTraits is missing" in compile_errors(folder)
    apply(row, folder)
    assert "a term of Form::frame has no formula here" in compile_errors(folder)
    assert "kTerm == kSquaredError" in formula.new


@needs_compiler
def test_more_terms_than_fit_are_told(tmp_path):
    """Sums have one thread per term: in a warp for blocks, in as many places for all blocks."""
    folder = copied(tmp_path, "csrc")
    for k in range(40):
        apply(before("csrc/params.h", "  kTermCount\n", f"  kMore{k},\n"), folder)
        row = f'    {{kMore{k}, "more{k}", true, true, Form::steps, false, GpuKernel::frames, Denominator::steps}},\n'
        apply(before("csrc/params.h", "};\n\nconstexpr bool traits_in_order", row), folder)
    errors = compile_errors(folder)
    assert "one thread per term, in blocks of one warp too" in errors
    assert "sum_rows adds up as many terms as it has places" in errors


def test_an_edit_has_one_place(tmp_path):
    (tmp_path / "file").write_text("a\nb\nb\n")
    for place, times in (("b\n", 2), ("c", 0)):
        with pytest.raises(AssertionError, match=f"{times} times, expected once"):
            apply(before("file", place, "new\n"), tmp_path)
    apply(before("file", "a\n", "new\n"), tmp_path)
    assert (tmp_path / "file").read_text() == "new\na\nb\nb\n"
