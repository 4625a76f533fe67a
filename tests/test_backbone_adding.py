"""A backbone as three files: the recipe of docs/adding.md, carried out beside the package and in a copy of it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from structloss import backbones
from structloss.backbones import registry
from structloss.cli import main
from structloss.errors import ArgumentError, UnknownNameError

ROOT = Path(__file__).resolve().parents[1]
NAME = "linear-h36m"


def recipe():
    """The files of the recipe: path -> content; the third is the script that writes it."""
    text = (ROOT / "docs" / "adding.md").read_text(encoding="utf-8")
    section = re.split(r"^## ", text.partition("## A backbone\n")[2], flags=re.MULTILINE)[0]
    paths = re.findall(r"^\*\*\d\. `([^`]+)`\*\*", section, flags=re.MULTILINE)
    blocks = re.findall(r"^```\w+\n(.*?)^```$", section, flags=re.DOTALL | re.MULTILINE)
    touched = re.search(r"^Files touched, and no others: (.*?)\. `tests", section, flags=re.DOTALL | re.MULTILINE)
    assert re.findall("`([^`]+)`", touched.group(1)) == paths and len(paths) == 3
    return dict(zip(paths, blocks, strict=True))


FAMILY = recipe()["structloss/backbones/linear.py"]


@pytest.fixture
def added(monkeypatch, tmp_path):
    """The family's module beside the package's own, for a test."""
    backbones.names()  # all families are in the tables before they are copied: a module registers once per process
    (tmp_path / "linear.py").write_text(FAMILY, encoding="utf-8")
    monkeypatch.setattr(backbones, "__path__", [*backbones.__path__, str(tmp_path)])
    for table in ("variants", "flagships"):
        monkeypatch.setattr(registry.BACKBONES, table, dict(getattr(registry.BACKBONES, table)))
    registry.BACKBONES.search()
    yield
    sys.modules.pop("structloss.backbones.linear", None)


def test_a_new_family_is_found(added, capsys):
    assert NAME in backbones.names() and backbones.info("linear").name == NAME
    facts = backbones.info(NAME)
    assert (facts.family, facts.recipe, facts.frames) == ("linear", NAME, 1)
    assert (facts.channels, facts.joints_in, facts.joints_out) == (("x", "y"), (17,), 17)
    model = backbones.create("linear")
    assert model(torch.zeros(2, 5, 17, 3)).shape == (2, 5, 17, 3)
    assert backbones.predict_video(model, torch.rand(7, 17, 2)).shape == (7, 17, 3)
    published = {f"module.{key}": value for key, value in backbones.to_official(model).items()}
    assert backbones.load_published(model, {"model_pos": published}).loaded == 2
    with pytest.raises(ArgumentError, match=f"depth is not an override of {NAME}, expected one of num_joints"):
        backbones.create(NAME, depth=2)

    assert main(["backbones"]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith(NAME))
    assert re.sub(" +", " ", row) == f"{NAME} any 17 -> 17 0.00 M 1.73e-06 G 99.9 gt2d Nobody et al., An example, 2026"
    assert main(["backbones", "info", "linear"]) == 0
    assert "recipe       linear-h36m\n" in capsys.readouterr().out
    with pytest.raises(UnknownNameError, match="did you mean 'linear"):
        backbones.create("linaer-h36m")


def test_it_is_gone_again():
    with pytest.raises(UnknownNameError, match="unknown backbone 'linear'"):
        backbones.info("linear")


#: imports come from the copy, not from where the package is installed
RUN = """
import sys
sys.meta_path[:] = [finder for finder in sys.meta_path if "Redirecting" not in type(finder).__name__]
sys.path[:0] = [".", "tests"]
import structloss
assert structloss.__file__.startswith({root!r}), structloss.__file__
"""


@pytest.mark.slow(seconds=40)
def test_three_files_are_a_backbone(tmp_path):
    """In a copy of the repository, the tests of all backbones take the new one, and pass."""
    copy = tmp_path / "copy"
    kept = shutil.ignore_patterns("__pycache__", "results", "*.so", "*.npz", "*.xz")
    for folder in ("structloss", "tests", "bench"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=kept)
    shutil.copytree(ROOT / "kernels", copy / "structloss" / "kernels", ignore=kept)
    shutil.copy(ROOT / "pyproject.toml", copy)
    *files, (golden, script) = recipe().items()
    for path, content in files:
        assert not (copy / path).exists()
        (copy / path).write_text(content, encoding="utf-8")

    def run(code):
        code = RUN.format(root=str(copy)) + code
        environment = os.environ | {"PYTHONPATH": "", "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            [sys.executable, "-c", code], cwd=copy, env=environment, capture_output=True, text=True, check=False
        )

    written = run(script)
    assert written.returncode == 0, written.stderr
    assert (copy / golden).is_file()
    tests = [f"tests/test_{name}.py" for name in ("backbones", "recipes", "learned_training", "plain_backbones")]
    done = run(f"import pytest; sys.exit(pytest.main([*{tests}, '-k', 'linear-h36m', '-rs', '-vv']))")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    passed = set(re.findall(r"::(test_\w+)\[[^\]]*linear-h36m[^\]]*\] PASSED", done.stdout))
    assert passed >= {
        "test_golden_output_and_gradients", "test_published_keys_and_shapes", "test_published_checkpoint_round_trip",
        "test_params_and_macs_are_those_of_info", "test_every_trained_parameter_gets_a_gradient",
        "test_fullgraph_and_bfloat16", "test_state_dict_round_trip", "test_exports", "test_bad_input_is_one_sentence",
        "test_recipe_trains_two_steps", "test_every_family_trains_with_a_loss_net",
    }  # fmt: skip
