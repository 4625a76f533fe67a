"""The analysis of a loss-net, against an energy whose every answer is known; its table, figure and command."""

import json
import math

import pytest
import torch
from scipy import stats

pytest.importorskip("lightning")

from structloss import cli, skeletons
from structloss.data import generate_clips, save_archive
from structloss.errors import ArgumentError
from structloss.harness.energy import _auc, analyse
from structloss.harness.lifting import LiftingModule
from structloss.learned import CORRUPTIONS, LossNet
from structloss.reports.energy import energy_table, plot_energy, write_energy_report

H36M = skeletons.get("h36m")
TINY = {"dim_feat": 16, "depth": 1, "num_heads": 2, "dim_rep": 16, "predict_offset": False}


class Orthographic(LossNet):
    """E = the distance of the pose's x and y from the 2D: blind to depth."""

    def __init__(self):
        super().__init__("h36m", "linear-small", width=8)

    def forward(self, x, y, unit=1.0):
        y = y - y[..., :1, :]
        return (y[..., :2] - x[..., :2]).norm(dim=-1).mean(-1)


def batches(count=40, frames=5):
    """Root-relative poses of about a person's size with their orthographic 2D."""
    generator = torch.Generator().manual_seed(0)
    y = 0.3 * torch.randn(count, 1, 17, 3, generator=generator)
    y = y + 0.02 * torch.randn(count, frames, 17, 3, generator=generator)
    y = y - y[..., :1, :]
    weight = torch.ones(count, frames, 17)
    weight[0, 0, 3] = 0
    y[0, 0, 3] = math.nan
    for part in range(0, count, 10):
        some = slice(part, part + 10)
        yield {"input": y[some][..., :2], "target": y[some], "weight": weight[some]}


@pytest.fixture(scope="module")
def found():
    return analyse(Orthographic(), batches(), target="camera")


def test_energies_of_corruptions(found):
    assert found.frames == 39 * 5  # the clip with a missing joint is left out
    assert found.truth_mean == pytest.approx(0, abs=1e-6) and found.truth_std == pytest.approx(0, abs=1e-6)
    assert set(found.corruptions) == {name for name, kind in CORRUPTIONS.items() if not kind.temporal}
    for name, one in found.corruptions.items():
        assert one.sizes == [0.0, *CORRUPTIONS[name].sweep] and len(one.energy) == len(one.auc) == len(one.sizes)
        if name == "mirrored_depth":  # what it can't see
            assert one.energy == pytest.approx([0] * len(one.sizes), abs=1e-6) and not one.distance[-1] < 100
        else:
            assert one.rises and one.default_auc > 0.999 and min(one.auc[1:]) > 0.999 and min(one.above[1:]) > 0.999
    noise = found.corruptions["noise"]
    # Two of three coordinates, relative to the pelvis: a joint moves by sigma·√2 in each, the pelvis by nothing.
    assert noise.energy[3] == pytest.approx(16 / 17 * 0.02 * math.sqrt(math.pi), rel=0.05)
    assert noise.distance[-1] / noise.distance[1] == pytest.approx(16, rel=0.1)


def test_auc_and_correlations_against_scipy():
    torch.manual_seed(0)
    truth, other = torch.randn(50), torch.randn(70).round(decimals=1) + 0.3
    truth[:10] = other[:10]  # ties
    u = stats.mannwhitneyu(other.numpy(), truth.numpy()).statistic / (50 * 70)
    assert _auc(truth, other) == pytest.approx(u, abs=1e-6)
    assert _auc(torch.zeros(5), torch.zeros(5)) == 0.5
    assert _auc(torch.tensor([1000.0]), torch.tensor([1000.1])) == 1.0


class _Noisy(LiftingModule):
    """Predicts the truth, which it is handed, and noise that grows from clip to clip."""

    def predict_image_space(self, keypoints):
        drawn = torch.randn(*keypoints.shape[:-1], 3, generator=torch.Generator().manual_seed(len(self.poses)))
        error = torch.linspace(0.01, 0.1, len(keypoints))[:, None, None, None] * drawn
        return self.poses.pop(0) + error


def test_predictions():
    body = _Noisy(backbone_args=TINY, target="camera")
    body.poses = [batch["target"] for batch in batches()]
    result = analyse(Orthographic(), batches(), target="camera", module=body)
    assert result.prediction_auc > 0.999 and len(result.scatter) == result.frames
    rank = stats.spearmanr(*zip(*result.scatter, strict=True)).statistic
    assert result.correlation["mpjpe"] == pytest.approx(rank, abs=1e-5) and rank > 0.8
    assert {"pa_mpjpe", "lse", "bsle", "lle", "mpjpe at equal pa_mpjpe"} < set(result.correlation)
    # It pulls x and y straight back, of each joint by the same force, and z not at all: a little off the way.
    assert 0.5 < result.cosine < 0.9 and result.path == sorted(result.path) and result.path[0] < 1e-6
    assert result.path[2] == pytest.approx(result.path[4] / 2, rel=1e-4)
    assert result.pull[1:] == pytest.approx([1 / 17] * 16, rel=1e-3)


def test_report(tmp_path, found):
    text = energy_table(found)
    assert "| mirrored depth | 1 |" in text and text.count("| yes |") == 6
    folder = write_energy_report(found, H36M, tmp_path / "out", "a loss-net")
    assert json.loads((folder / "energy.json").read_text())["frames"] == found.frames
    assert (folder / "energy.md").read_text().startswith("### a loss-net")
    image = (folder / "energy.png").read_bytes()
    assert (
        image[:4] == b"\x89PNG" and plot_energy(found, H36M, tmp_path / "again.png", "a loss-net").read_bytes() == image
    )


def test_command(tmp_path, monkeypatch, capsys):
    """A loss-net is trained and looked at, saved, and looked at again; then that of a run with its predictions."""
    monkeypatch.chdir(tmp_path)
    save_archive(tmp_path / "motion.npz", generate_clips(4, 2, 27, 0))
    arguments = ["energy", "--data", "motion.npz", "--views", "1", "--frames", "60"]
    assert cli.main([*arguments, "--train", "3", "--net", "linear-small", "--out", "one"]) == 0
    assert "| noise |" in capsys.readouterr().out
    assert cli.main([*arguments, "--loss-net", "one/loss_net.safetensors", "--out", "two"]) == 0
    first, second = (json.loads((tmp_path / name / "energy.json").read_text()) for name in ("one", "two"))
    assert first == second
    fit = ["fit", "--config", "sealpose-tiny", "--data.data", "motion.npz", "--data.window", "9", "--data.views", "1"]
    fit += ["--data.batch_size", "4", "--model.backbone_args", json.dumps(TINY), "--trainer.max_epochs", "1"]
    fit += ["--trainer.accelerator", "cpu", "--model.learned.net", "linear-small", "--data.progress", "false"]
    assert cli.main(fit) == 0
    capsys.readouterr()
    assert cli.main(["energy", "runs/sealpose-tiny/version_0", "--frames", "60", "--out", "3\x1b[2J"]) == 0
    said = capsys.readouterr().out
    assert "Predictions: AUC against the truth" in said and "\x1b" not in said and r"written to 3\x1b[2J:" in said
    assert json.loads((tmp_path / "3\x1b[2J" / "energy.json").read_text())["correlation"].keys() >= {"mpjpe", "bsle"}


@pytest.mark.parametrize("arguments", [[], ["--train", "3", "--loss-net", "x.safetensors"]])
def test_command_without_or_with_too_much(arguments, capsys):
    assert cli.main(["energy", *arguments]) == 1
    assert "expected a run's folder" in capsys.readouterr().err


def test_other_losses_are_named(capsys):
    assert cli.main(["fit", "--config", "repose-tiny", "--loss", "nce"]) == 1
    assert "--loss is 'nce', expected 'learned'" in capsys.readouterr().err
    with pytest.raises(ArgumentError):
        LiftingModule(backbone_args=TINY, learned={"frames": 0})
