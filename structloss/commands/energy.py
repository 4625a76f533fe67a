"""`structloss energy`: look at a loss-net on held-out poses, of a run, of a file, or trained for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import ArgumentError, needs_extra
from ..reports.energy import energy_table, write_energy_report
from ..reports.run_folder import read_run
from .report import data_module

__all__ = ["look_at_energy"]

#: how single poses are looked at where no run says how its windows are cut
_WINDOW = 9


def look_at_energy(
    run: str | None = None,
    *,
    loss_net: str | None = None,
    train: int | None = None,
    net: str = "graph",
    lr: float = 1e-3,
    data: str | None = None,
    views: int = 4,
    skeleton: str = "h36m",
    detections: str = "simulated",
    batch_size: int = 32,
    frames: int = 20_000,
    seed: int = 0,
    out: str = "runs/energy",
) -> Path:
    """Analyse a loss-net, print the table and write it with a figure and the numbers; returns the folder.

    Args:
        run: folder of a run with a learned loss: its loss-net (but for `loss_net`) and its predictions.
        loss_net: file of a loss-net, or a training checkpoint.
        train: train a new one for so many steps, on corrupted poses; it is saved beside the analysis.
        net: variant to train.
        lr: peak learning rate of that.
        data: data set; None is the run's, or synthetic motion.
        views: cameras that see each clip.
        skeleton: joint order of the data.
        detections: "simulated" or "exact" 2D, where the data set has none of its own.
        batch_size: clips of a training step.
        frames: poses to look at, at most.
        seed: of data, training and corruptions.
        out: folder to write.

    Raises:
        ArgumentError: neither or too much given.
        MissingFileError, CheckpointError, DataError: what is given can't be read.
        MissingDependencyError: the `harness` extra is not installed.
    """
    with needs_extra("harness"):
        from ..data import MotionDataModule
        from ..harness.energy import analyse
        from ..harness.load import load_trained
        from ..harness.loss_nets import load_loss_net, train_loss_net
    if sum(x is not None for x in (loss_net, train)) > 1 or not (run or loss_net or train):
        raise ArgumentError("expected a run's folder, --loss-net FILE or --train STEPS, one of the last two at most.")
    module, found = None, None
    if run is not None:
        found = read_run(run)
        if found.checkpoint is None:
            raise ArgumentError(f"{run} has no checkpoint yet, expected a run that was trained.")
        module, _ = load_trained(found.checkpoint)
        source = data_module(found, data, {})
    else:
        common: dict[str, Any] = {"window": _WINDOW, "stride": _WINDOW, "target": "camera", "views": views}
        common["detections"] = detections
        source = MotionDataModule(data=data, skeleton=skeleton, batch_size=batch_size, seed=seed, **common)
        source.setup()
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    if train is not None:
        print(f"training a loss-net ({net}) for {train} steps", flush=True)
        loss, _ = train_loss_net(
            source, steps=train, net=net, lr=lr, seed=seed, progress=True, objective="regression", frames=1
        )
        chosen, name = loss.net, f"loss-net {net}, {train} steps on corruptions"
        chosen.save(folder / "loss_net.safetensors")
    else:
        path = loss_net or str(found.checkpoint)
        chosen, name = load_loss_net(path), f"loss-net of {run or loss_net}"
    result = analyse(chosen, source.val_dataloader(), target=source.target, module=module, frames=frames, seed=seed)
    write_energy_report(result, chosen.skeleton, folder, name)
    print(energy_table(result), flush=True)
    print(f"written to {folder}: energy.md, energy.json, energy.png" + (", loss_net.safetensors" if train else ""))
    return folder
