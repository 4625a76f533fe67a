"""`structloss energy`: evaluate a loss network's energy on held-out poses, of a run, of a file, or trained for it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ArgumentError, needs_extra
from ..text import visible
from ._imports import import_torchmetrics
from ._parser import command, options, positive

if TYPE_CHECKING:
    from ..data import MotionDataModule
    from ..harness.run_folder import Run
    from ..learned import LossNet

__all__ = ["add", "evaluate_energy"]

ORDER = 50

#: frames of a window where no run says how its windows are cut
_WINDOW = 9


def add(commands: argparse._SubParsersAction) -> None:
    parser = command(
        commands,
        "energy",
        "evaluate a loss network's energy on held-out poses: which faults it sees, and whether it follows the error",
        "  structloss energy runs/repose-tiny                     of a run with --loss learned, and its predictions\n"
        "  structloss energy --train 2000 --data motion.npz       train one on corrupted poses first, and keep it\n"
        "  structloss energy --loss-net loss_net.safetensors --data motion.npz --out runs/energy\n",
    )
    parser.add_argument(
        "folder", nargs="?", metavar="RUN_DIR", help="folder of a run: runs/NAME/version_N, or runs/NAME"
    )
    parser.add_argument("--loss-net", metavar="FILE", help="a saved loss network, or a checkpoint with one")
    parser.add_argument("--train", type=positive, metavar="STEPS", help="train a loss network on corrupted poses")
    parser.add_argument("--net", default="graph", help="variant to train (default: graph)")
    parser.add_argument("--lr", type=float, default=1e-3, help="its peak learning rate (default: 1e-3)")
    parser.add_argument("--batch-size", type=positive, default=32, help="clips of a training step (default: 32)")
    parser.add_argument(
        "--data", metavar="PATH", help="data set of any format (default: the run's, or synthetic motion)"
    )
    parser.add_argument("--views", type=positive, default=4, metavar="N", help="cameras per clip, 1 to 4 (default: 4)")
    parser.add_argument("--skeleton", default="h36m", help="joint order of the data (default: h36m)")
    parser.add_argument(
        "--detections",
        default="simulated",
        choices=("simulated", "exact"),
        help="2D of motion without its own (default: simulated)",
    )
    parser.add_argument("--frames", type=positive, default=20_000, help="poses to evaluate, at most (default: 20000)")
    parser.add_argument("--seed", type=int, default=0, help="of data, training and corruptions (default: 0)")
    parser.add_argument("--out", default="runs/energy", metavar="DIR", help="folder to write (default: runs/energy)")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    evaluate_energy(arguments.folder, **options(arguments, "folder"))


def evaluate_energy(
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
    """Analyse a loss network, print the table and write it with a figure and the numbers; returns the folder.

    Args:
        run: folder of a run with a learned loss: its loss network (but for `loss_net`) and its predictions.
        loss_net: file of a loss network, or a training checkpoint.
        train: train a new one for this many steps, on corrupted poses; it is saved beside the analysis.
        net: variant to train.
        lr: peak learning rate of that.
        data: data set; None is the run's, or synthetic motion.
        views: cameras that see each clip.
        skeleton: joint order of the data.
        detections: "simulated" or "exact" 2D, where the data set has none of its own.
        batch_size: clips of a training step.
        frames: poses to evaluate, at most.
        seed: of data, training and corruptions.
        out: folder to write.

    Raises:
        ArgumentError: neither or too much given.
        MissingFileError, CheckpointError, DataError: what is given can't be read.
        MissingDependencyError: the `harness` extra is not installed.
    """
    with needs_extra("harness"):
        import_torchmetrics()
        from ..data import MotionDataModule
        from ..harness.energy import analyse
        from ..harness.load import load_trained
        from ..harness.loss_nets import load_loss_net
        from ..harness.run_folder import data_of
    from ..reports.energy import energy_table, write_energy_report

    if (loss_net is not None and train is not None) or not (run or loss_net or train):
        raise ArgumentError("expected a run's folder, --loss-net FILE or --train STEPS, one of the last two at most.")
    module, path, folder = None, loss_net, Path(out)
    if run is not None:
        found = _trained(run)
        path = loss_net or str(found.checkpoint)
        module, _ = load_trained(str(found.checkpoint))
        source = data_of(found, data)
    else:
        source = MotionDataModule(
            data=data,
            skeleton=skeleton,
            batch_size=batch_size,
            seed=seed,
            window=_WINDOW,
            stride=_WINDOW,
            target="camera",
            views=views,
            detections=detections,
        )
        source.setup()
    folder.mkdir(parents=True, exist_ok=True)
    if train is not None:
        chosen = _train(source, train, net, lr, seed, folder)
        name = f"loss network {net}, {train} steps on corruptions"
    else:
        assert path is not None
        chosen, name = load_loss_net(path), f"loss network of {run or loss_net}"
    result = analyse(chosen, source.val_dataloader(), target=source.target, module=module, frames=frames, seed=seed)
    write_energy_report(result, chosen.skeleton, folder, name)
    print(energy_table(result), flush=True)
    files = "energy.md, energy.json, energy.png" + (", loss_net.safetensors" if train else "")
    print(visible(f"written to {folder}: {files}"))
    return folder


def _trained(folder: str) -> Run:
    """A run that has a checkpoint."""
    from ..harness.run_folder import read_run

    found = read_run(folder)
    if found.checkpoint is None:
        raise ArgumentError(f"{found.folder} has no checkpoint yet, expected a run that was trained.")
    return found


def _train(source: MotionDataModule, steps: int, net: str, lr: float, seed: int, folder: Path) -> LossNet:
    """A new loss network, saved in the folder."""
    from ..harness.loss_nets import train_loss_net

    print(f"training a loss network ({visible(net)}) for {steps} steps", flush=True)
    loss, _ = train_loss_net(
        source, steps=steps, net=net, lr=lr, seed=seed, progress=True, objective="regression", frames=1
    )
    loss.net.save(folder / "loss_net.safetensors")
    return loss.net
