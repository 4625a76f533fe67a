"""The log of a run, metrics.csv, which a resumed run continues instead of starting anew."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only

from ..files import write_text

__all__ = ["RunLogger", "read_metrics"]


def read_metrics(path: Path) -> list[dict[str, str]]:
    """The rows of a metrics.csv; a last line that a kill cut off is left out."""
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [row for row in rows if None not in row.values() and None not in row and row.get("step", "").isdigit()]


class _Writer(ExperimentWriter):
    """Keeps what an earlier part of the run wrote before the step at which this one begins."""

    def __init__(self, log_dir: str, first_step: int) -> None:
        self._first_step = first_step
        super().__init__(log_dir)

    def _check_log_dir_exists(self) -> None:
        path = Path(self.metrics_file_path)
        kept = [row for row in read_metrics(path) if int(row["step"]) < self._first_step]
        if not kept:
            path.unlink(missing_ok=True)
            return
        self.metrics_keys = sorted({key for row in kept for key, value in row.items() if value != ""})
        self._write(kept)  # as the file has them, to the letter

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        self._write(read_metrics(Path(self.metrics_file_path)))

    def _write(self, rows: list[dict[str, str]]) -> None:
        """Write the file anew, all of it or nothing: a run's past is not to be had again."""
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, fieldnames=self.metrics_keys, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.metrics_file_path, text.getvalue())

    def log_metrics(self, metrics_dict: dict[str, float], step: int | None = None) -> None:
        super().log_metrics(metrics_dict, step)
        # A checkpoint writes its step's row ahead of time; Lightning then logs the same row again.
        row = self.metrics.pop()
        if (row["step"], row.keys()) != getattr(self, "_last", None):
            self.metrics.append(row)
        self._last = row["step"], row.keys()


class RunLogger(CSVLogger):
    """Lightning's CSVLogger, `save_dir/name/version_N/metrics.csv`, for runs that can be resumed. It writes nothing
    before there is a metric to log: a run that never begins to train leaves no folder."""

    first_step = 0
    """Step from which this process logs; rows of earlier steps are kept."""
    place: Callable[[], Path] | None = None
    """Makes the folder to log into instead of `save_dir/name/version_N`, when there is something to log."""
    folder: Path | None = None
    """The folder that it made."""
    _ready = False  # to make the folder
    _waiting: Any = None  # arguments of the model, until then

    @property
    def log_dir(self) -> str:
        return str(self.folder) if self.folder is not None else super().log_dir

    def log_hyperparams(self, params: Any = None) -> None:
        """Keep the model's arguments for :meth:`begin`."""
        self._waiting = params

    def begin(self) -> None:
        """Make the folder, and write what has waited for it."""
        if not self._ready and self.place is not None:
            self.folder = self.place()
        self._ready = True
        if self._waiting is not None:
            super().log_hyperparams(self._waiting)
            self._waiting = None

    @rank_zero_only
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.begin()
        super().log_metrics(metrics, step)

    def save(self) -> None:
        if self._experiment is not None:
            super().save()

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        if not self._ready:  # Lightning asks for it while it sets up, to have it made
            return cast(ExperimentWriter, None)
        if self._experiment is None:
            self._fs.makedirs(self.log_dir, exist_ok=True)
            self._experiment = _Writer(self.log_dir, self.first_step)
        return cast(_Writer, self._experiment)

    def resume(self, version: int, first_step: int) -> None:
        """Log into the folder of an earlier part of the run."""
        self._version, self.first_step = version, first_step
