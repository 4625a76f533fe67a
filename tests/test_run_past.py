"""What a run has behind it is not lost: the rows of its log, and checkpoints beside damaged ones."""

import os
import warnings

import pytest
import torch

pytest.importorskip("lightning")

import lightning as L

from structloss.harness.checkpoint_io import SafeCheckpointIO
from structloss.harness.restart import Restart, newest_intact
from structloss.harness.run_logger import RunLogger, read_metrics


class Line(L.LightningModule):
    """A line through nothing."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch[0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


def fit(folder, epochs):
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(16, 2)), batch_size=4)
    logger = RunLogger(str(folder), "run", version=0)
    logger.resume(0, 0)
    trainer = L.Trainer(
        max_epochs=epochs, logger=logger, callbacks=[Restart()], plugins=[SafeCheckpointIO()],
        enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(Line(), data)


def test_damaged_checkpoints_do_not_count(tmp_path):
    folder = tmp_path / "run" / "version_0" / "checkpoints"
    folder.mkdir(parents=True)
    damaged = ["resume-00004-000000080.ckpt", "resume-00005-000000090.ckpt"]
    for name in damaged:
        (folder / name).write_bytes(b"damaged")
    fit(tmp_path, 1)
    written = {path.name for path in folder.iterdir()} - {*damaged}
    assert len(written) == 1, "what was written last stays, whatever the others are called"
    assert (folder / damaged[1]).exists()
    (folder / damaged[0]).write_bytes(b"damaged")
    with pytest.warns(UserWarning, match="The one before it is used"):
        assert newest_intact(folder) == folder / min(written)
    assert {path.name for path in folder.iterdir()} == written | {f"{name}.damaged" for name in damaged}
    fit(tmp_path, 3)
    kept = sorted(path.name for path in folder.glob("*.ckpt"))
    assert len(kept) == 2 and newest_intact(folder) == folder / kept[-1]


@pytest.mark.parametrize("step", ["resuming", "a new column"])
def test_rows_of_a_log_are_there_when_it_can_not_be_written_anew(step, tmp_path, monkeypatch):
    place = tmp_path / "run" / "version_0" / "metrics.csv"
    place.parent.mkdir(parents=True)
    rows = [{"step": str(number), "train/loss": f"{number / 2}"} for number in range(50)]
    place.write_text("step,train/loss\n" + "".join(f"{row['step']},{row['train/loss']}\n" for row in rows))

    def full(*_):
        raise OSError(28, "No space left on device")

    logger = RunLogger(str(tmp_path), "run", version=0)
    logger.resume(0, 40)
    if step == "a new column":
        logger.log_metrics({"train/loss": 1.0}, 40)
        logger.save()
        assert read_metrics(place) == [*rows[:40], {"step": "40", "train/loss": "1.0"}]
    before = place.read_bytes()
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(os, "fsync", full)
        logger.log_metrics({"val/mpjpe": 2.0}, 41)
        logger.save()
    assert place.read_bytes() == before and os.listdir(place.parent) == ["metrics.csv"]
    other = RunLogger(str(tmp_path), "run", version=0)
    other.resume(0, 40)
    other.log_metrics({"val/mpjpe": 2.0}, 41)
    other.save()
    assert [row["train/loss"] for row in read_metrics(place)] == [row["train/loss"] for row in rows[:40]] + [""]
    assert read_metrics(place)[-1]["val/mpjpe"] == "2.0"
