"""The examples run as they stand, in a folder of their own, and say what their text promises."""

import ast
import re
import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
FILES = sorted(path.name for path in EXAMPLES.glob("[0-9]_*.py"))


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run an example in an empty folder; its lines and the names of the files that it wrote."""

    def _run(name, *arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        written = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
        return capsys.readouterr().out.splitlines(), written

    return _run


def numbers(line):
    return [float(number) for number in re.findall(r"-?\d+\.\d+", line)]


def test_there_are_five_in_reading_order():
    assert [name[0] for name in FILES] == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize("name", FILES)
def test_an_example_is_short_and_uses_public_names_only(name):
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    assert 40 <= len(text.splitlines()) <= 90
    assert f"python examples/{name}" in text, "it says how it is run"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("structloss"):
            module = sys.modules.get(node.module) or __import__(node.module, fromlist=["__all__"])
            assert not any(part.startswith("_") for part in node.module.split("."))
            public = [*getattr(module, "__all__", ()), *(["TERMS"] if node.module == "structloss" else [])]
            for alias in node.names:
                assert node.module == "structloss.errors" or alias.name in public, alias.name
        if isinstance(node, ast.Attribute):
            assert not node.attr.startswith("_"), node.attr


def test_a_loss_in_your_loop(run):
    lines, written = run("1_loss_in_your_loop.py")
    errors = [numbers(line)[0] for line in lines if line.startswith("epoch")]
    assert len(errors) == 4 and errors[-1] < 0.8 * errors[0], "the loop learns"
    value, gradient = numbers(lines[-1])
    assert value == pytest.approx(gradient, abs=2e-4)
    assert written == []


def test_a_new_term(run):
    lines, written = run("2_new_term.py")
    assert lines[0] == "smoothness: values and gradient agree" and lines[1].startswith("together: loss ")
    assert written == []


def test_published_weights(run):
    lines, written = run("3_published_weights.py")
    text = "\n".join(lines)
    assert "loaded 32 tensors from videopose3d.bin (keys under 'module.')" in text
    assert "refused: videopose3d.bin is not a checkpoint of this VideoPose3D" in text
    assert "poses [100, 17, 3]" in text
    assert written == ["videopose3d.bin", "videopose3d.safetensors"]


def test_published_weights_of_a_file_of_yours(run, tmp_path):
    from structloss import backbones

    backbones.save_checkpoint(backbones.create("videopose3d-27"), tmp_path / "mine.safetensors")
    lines, _ = run("3_published_weights.py", "mine.safetensors")
    assert any(line.startswith("loaded") and "from mine.safetensors" in line for line in lines)


def test_a_learned_loss(run):
    lines, written = run("4_learned_loss.py")
    epochs = [line for line in lines if line.startswith("epoch")]
    assert len(epochs) == 6
    *_, prediction, swapped = numbers(epochs[-1])
    assert prediction > 0.7 and swapped > 0.9, "the loss network tells wrong poses from true ones"
    true, wrong = numbers(lines[-1])
    assert true < wrong
    assert written == ["loss_net.safetensors"]


def test_prediction(run):
    pytest.importorskip("matplotlib")  # of the harness extra, which `structloss predict` asks for
    lines, written = run("5_prediction.py")
    text = "\n".join(lines)
    assert "1 track, 91 frames, coco keypoints" in text and "positions [91, 17, 3] in metres" in text
    assert "the person is missing in 4 of 91 frames" in text and "mm from the truth" in text
    assert "wrote poses/dance.bvh" in text and lines[-1] == "read back: 91 frames"
    assert written == ["dance.bvh", "dance.npz", "poses/dance.bvh", "poses/dance.npz"]
