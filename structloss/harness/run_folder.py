"""What `structloss fit` left in a run's folder: configuration, log and checkpoints, read without running any of it; and
the data that it names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError, MissingFileError
from ..reading import parse_yaml, read_text
from .run_logger import read_metrics

if TYPE_CHECKING:
    from ..data import MotionDataModule
    from ..images import ImagesDataModule
    from ..images.template_module import TemplatesDataModule

__all__ = ["Best", "Run", "best_of", "checkpoint_in", "data_of", "frames_of", "images_of", "read_run", "start_in"]

_POINTS = 2000  # of a training curve; longer ones are averaged


@dataclass
class Run:
    """A run's folder, read.

    Attributes:
        folder: `runs/NAME/version_N`.
        name: `NAME/version_N`.
        text: the resolved configuration as it stands in config.yaml.
        config: the same, parsed.
        curves: as in :class:`structloss.reports.ArmResult`.
        checkpoint: the best one, else the last one; None where there is none yet.
    """

    folder: Path
    name: str
    text: str
    config: dict[str, Any]
    curves: dict[str, list[float]] = field(default_factory=dict)
    checkpoint: Path | None = None

    @property
    def model(self) -> dict[str, Any]:
        """Arguments of the lifting module."""
        return dict(self.config.get("model") or {})

    @property
    def data(self) -> dict[str, Any]:
        """Arguments of the data module, the seed included."""
        return {**(self.config.get("data") or {}), "seed": self.config.get("seed_everything", 0)}


def read_run(folder: str | Path, checkpoint: str = "best") -> Run:
    """Read the folder of a run.

    Args:
        folder: `runs/NAME/version_N`, or `runs/NAME` for its newest version with a checkpoint.
        checkpoint: "best", "last", or the path of one.

    Raises:
        MissingFileError: no such folder, no config.yaml in it, or no checkpoint of that kind.
        DataError: config.yaml or metrics.csv can't be read.
        MissingDependencyError: the `harness` extra is not installed.
    """
    given = Path(folder)
    if not given.is_dir():
        found = "is a file" if given.exists() else "does not exist"
        raise MissingFileError(f"{given} {found}, expected the folder of a run, such as runs/repose-tiny/version_0.")
    folder = given
    if not (folder / "config.yaml").is_file():
        folder = _newest(given, checkpoint)
    path = folder / "config.yaml"
    text = read_text(path, "the configuration of a run")
    try:
        config = parse_yaml(text, str(path))
    except DataError as error:
        raise DataError(f"{path} can't be read: {str(error).removeprefix(f'{path} ')}") from error
    if not isinstance(config, dict) or not isinstance(config.get("model"), dict):
        raise DataError(f"{path} has no model, expected the configuration of a run of structloss fit.")
    return Run(
        folder=folder,
        name=f"{folder.parent.name}/{folder.name}" if folder.name.startswith("version_") else folder.name,
        text=text,
        config=config,
        curves=_curves(folder / "metrics.csv"),
        checkpoint=checkpoint_in(folder, checkpoint),
    )


def _newest(given: Path, checkpoint: str) -> Path:
    """The newest version below `runs/NAME` that was trained; tests and runs that failed early are passed over."""
    versions = sorted(given.glob("version_*/config.yaml"), key=lambda path: _number(path.parent.name), reverse=True)
    if not versions:
        raise MissingFileError(f"{given} has no config.yaml, expected the folder of a run of structloss fit.")
    found = [path.parent for path in versions if checkpoint_in(path.parent, checkpoint) is not None]
    if not found:
        names = ", ".join(path.parent.name for path in reversed(versions[:5]))
        raise MissingFileError(
            f"{given} has no run with a checkpoint ({names} have none), expected one that was trained."
        )
    inside = [folder for folder in found if Path(checkpoint).absolute().is_relative_to(folder.absolute())]
    return (inside or found)[0]


def _number(name: str) -> int:
    number = name.rpartition("_")[2]
    return int(number) if number.isdigit() else -1


def checkpoint_in(run: Path, wanted: str = "best") -> Path | None:
    """The checkpoint of a run's folder.

    Args:
        run: `runs/NAME/version_N`.
        wanted: "best" (by the validation that was best, else the last), "last", or the path of one.
    """
    folder = run / "checkpoints"
    if wanted not in ("best", "last"):
        if not Path(wanted).is_file():
            raise MissingFileError(f"checkpoint {wanted} does not exist, expected 'best', 'last' or the path of one.")
        return Path(wanted)
    patterns = ("best-*.ckpt", "last.ckpt", "resume-*.ckpt") if wanted == "best" else ("last.ckpt", "resume-*.ckpt")
    for pattern in patterns:
        if found := sorted(folder.glob(pattern), key=lambda path: path.stat().st_mtime):
            return found[-1]
    return None


def start_in(path: str, root: Path) -> str:
    """The file of weights that a training starts from.

    Args:
        path: a file, as it is; or a run's folder, `runs/NAME` or `runs/NAME/version_N`, whose last checkpoint it is.
        root: the folder in which `runs` is, where `path` is not in the working directory.

    Raises:
        MissingFileError: a folder of runs that is not there, or has no checkpoint.
    """
    folder = next((at for at in (Path(path), root / path) if at.is_dir()), None)
    if folder is None:
        if Path(path).suffix or Path(path).exists() or len(Path(path).parts) < 2:
            return path
        name = Path(path).name
        raise MissingFileError(
            f"init_from is {path!r}, which does not exist, expected a file, or the run of another training: structloss "
            f"fit --config {name} makes this one."
        )
    versions = sorted(folder.glob("version_*"), key=lambda at: _number(at.name), reverse=True)
    for run in (folder, *versions):
        if (found := checkpoint_in(run, "last")) is not None:
            return str(found)
    raise MissingFileError(
        f"init_from is {path!r}, which has no checkpoint, expected a run that was trained, or a file."
    )


@dataclass(frozen=True)
class Best:
    """The best validation of a run.

    Attributes:
        step: optimizer step after which it was.
        epoch: counted from 0.
        figures: what it came to: measure -> value, in the units of :data:`structloss.metrics.measures.MEASURES`.
    """

    step: int
    epoch: int
    figures: dict[str, float]


def best_of(run: Path, figure: str = "mpjpe") -> Best | None:
    """The validation of a run at which a figure was least, "loss" where that is all there is; None before the first."""
    rows = read_metrics(run / "metrics.csv")
    for name in (f"val/{figure}", "val/loss"):
        if found := [row for row in rows if row.get(name)]:
            row = min(found, key=lambda row: float(row[name]))
            values = {
                key.removeprefix("val/"): float(value) for key, value in row.items() if key[:4] == "val/" and value
            }
            return Best(int(row["step"]) + 1, int(row.get("epoch") or 0), values)
    return None


def _curves(path: Path) -> dict[str, list[float]]:
    """The log as curves: `step` and `train_...`, `val_step` and `val_...`."""
    try:
        rows = read_metrics(path)
        curves: dict[str, list[float]] = {}
        for kind, axis, most in (("train", "step", _POINTS), ("val", "val_step", math.inf)):
            names = sorted({key for row in rows for key in row if key.startswith(f"{kind}/")})
            part = [row for row in rows if any(row.get(name) for name in names)]
            table = np.array(
                [[float(row["step"]), *(float(row.get(name) or "nan") for name in names)] for row in part], dtype=float
            ).reshape(len(part), 1 + len(names))
            if len(table) > most:
                table = _averaged(table, int(most))
            curves[axis] = table[:, 0].tolist()
            curves |= {f"{kind}_{name[len(kind) + 1 :]}": table[:, 1 + i].tolist() for i, name in enumerate(names)}
    except (OSError, ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{path} can't be read: {error}.") from error
    return curves


def _averaged(table: np.ndarray, points: int) -> np.ndarray:
    """Rows averaged in `points` equal groups; NaN is left out."""
    groups = np.array_split(table, points)
    known = [np.isfinite(group) for group in groups]
    return np.array(
        [
            np.divide(np.where(k, group, 0).sum(0), k.sum(0), out=np.full(group.shape[1], math.nan), where=k.sum(0) > 0)
            for group, k in zip(groups, known, strict=True)
        ]
    )


def data_of(run: Run, data: str | None = None, opened: dict[str, MotionDataModule] | None = None) -> MotionDataModule:
    """The data module of a run, set up for validation.

    Args:
        run: whose configuration names the data.
        data: file or folder to read instead.
        opened: those that earlier calls returned, by their arguments: runs on the same data share one. Is added to.

    Raises:
        DataError: the configuration names another class, or arguments that this version doesn't have.
        MissingFileError: the data is not there.
    """
    from ..data import MotionDataModule

    opened = {} if opened is None else opened
    arguments = _arguments(run, MotionDataModule) | ({"data": data} if data is not None else {})
    key = repr(sorted(arguments.items(), key=str))
    if key not in opened:
        opened[key] = _set_up(run, MotionDataModule, arguments, data)
    return opened[key]


def images_of(run: Run, input_size: int, data: str | None = None) -> ImagesDataModule:
    """The data module of a run from images, set up for validation: those who are trained on are left out as far as the
    held-out ones do not depend on them.

    Args:
        run: whose configuration names the people.
        input_size: of the network, pixels.
        data: annotations of those who are scored, instead of those of the configuration.

    Raises:
        DataError, MissingFileError: as :func:`data_of`.
    """
    from ..images import ImagesDataModule

    arguments = _arguments(run, ImagesDataModule) | {"batch": "labelled", "input_size": input_size}
    if arguments.get("data") is not None:
        arguments |= {"unlabelled": None, "unlabelled_images": None}
    if data is not None:
        arguments |= {"val_data" if arguments.get("val_data") is not None else "data": data}
    return _set_up(run, ImagesDataModule, arguments, data)


def frames_of(run: Run, size: int, data: str | None = None) -> TemplatesDataModule:
    """The data module of a run of shape templates, set up for validation: where folders of their own are scored, those
    that were trained on are left out.

    Args:
        run: whose configuration names the frames.
        size: of the network's frames, pixels.
        data: folders or videos instead of those of the configuration that are scored, or that some are held out of; of
            a run on rendered people, all of them are scored.

    Raises:
        DataError, MissingFileError: as :func:`data_of`.
    """
    from ..images import TemplatesDataModule

    arguments = _arguments(run, TemplatesDataModule) | {"size": size}
    own = arguments.get("val_path") is not None
    if data is not None:
        own = own or arguments.get("path") is None
        arguments["val_path" if own else "path"] = data
    if own:
        arguments |= {"path": None, "boxes": None, "motion": None}
    return _set_up(run, TemplatesDataModule, arguments, data)


def _arguments(run: Run, cls: type) -> dict[str, Any]:
    """The arguments of a run's data module, which has to be of a class."""
    arguments = run.data
    # A class that a file names is not imported: configurations may come from anywhere.
    nested = arguments.get("class_path", f"{cls.__module__}.{cls.__qualname__}")
    if not str(nested).endswith(f".{cls.__name__}") or not str(nested).startswith("structloss."):
        raise DataError(f"data in {run.folder / 'config.yaml'} is a {nested}, expected structloss's {cls.__name__}.")
    if "class_path" in arguments:
        return {**(arguments.get("init_args") or {}), "seed": arguments["seed"]}
    return arguments


def _set_up(run: Run, cls: Any, arguments: Mapping[str, Any], data: str | None) -> Any:
    try:
        module = cls(**arguments)
    except TypeError as error:
        raise DataError(f"data in {run.folder / 'config.yaml'} doesn't fit this version: {error}.") from error
    try:
        module.setup("validate")
    except MissingFileError as error:
        if data is not None:
            raise
        raise MissingFileError(f"{str(error).rstrip('.')}; where the data has moved, pass --data PATH.") from error
    return module
