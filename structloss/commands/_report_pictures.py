"""What `structloss report` has of runs of networks that start from pixels: pictures of what they find, instead of a
player of clips."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..files import scratch_folder
from ..text import visible

if TYPE_CHECKING:
    import torch

    from ..harness.run_folder import Run
    from ..metrics.evaluation import Evaluation
    from ..reports.results import ArmResult, RunSummary

__all__ = ["PicturesReport"]

Seen = TypeVar("Seen")


class PicturesReport(ABC, Generic[Seen]):
    """Runs of one system, as far as they were scored.

    Attributes:
        scored: name of a run -> its module, in evaluation mode, and what it was scored on.
        left_out: sentences on what could not be scored.
    """

    #: arguments of the data module that name files; without any of them people are rendered
    PATHS: tuple[str, ...]
    #: those that decide what is scored, and those that do of rendered people alone
    SCORED: tuple[str, ...]
    RENDERED: tuple[str, ...]
    #: what the figures are of, in words
    TEST: str
    #: registry name of the joints' order; empty where it has none
    SKELETON = ""

    def __init__(self) -> None:
        self.scored: dict[str, Seen] = {}
        self.left_out: list[str] = []

    @abstractmethod
    def objective(self, model: Mapping[str, Any]) -> dict[str, float]:
        """Loss -> its weight, of the arguments of a module."""

    @abstractmethod
    def evaluate(
        self, run: Run, checkpoint: Path, data: str | None, where: torch.device, progress: str
    ) -> tuple[Seen, Evaluation, Mapping[str, int]]:
        """Score a checkpoint of a run; the last that is returned is its epoch and step."""

    @abstractmethod
    def facts_of(self, seen: Seen) -> dict[str, Any]:
        """What a run was scored on."""

    @abstractmethod
    def pictures(self, name: str, seen: Seen, scratch: Path) -> dict[str, Path]:
        """Title -> PNG file in `scratch`, of what a run finds."""

    def take(self, run: Run, arm: ArmResult, data: str | None, where: torch.device) -> None:
        """Score a run's checkpoint into `arm`."""
        assert run.checkpoint is not None  # there is something to score
        seen, evaluation, place = self.evaluate(run, run.checkpoint, data, where, arm.name)
        arm.settings |= {"checkpoint": run.checkpoint.name, **place}
        arm.take(evaluation)
        self.scored[arm.name] = seen

    def facts(self) -> dict[str, Any]:
        """What was scored, of each run where they differ."""
        found = {name: self.facts_of(seen) for name, seen in self.scored.items()}
        first = next(iter(found.values()), {})
        return first if all(facts == first for facts in found.values()) else found

    def write(self, summary: RunSummary, path: Path) -> None:
        """Write the page: curves, tables, and pictures of every run that was scored."""
        from ..reports import plot_curves, run_report

        with scratch_folder(path) as scratch:
            figures: dict[str, Path] = {}
            if any(
                arm.curves.get(key) for arm in summary.arms for key in arm.curves if key not in ("step", "val_step")
            ):
                figures["Training"] = plot_curves(summary, scratch / "curves.png")
            for number, (name, seen) in enumerate(self.scored.items()):
                (own := scratch / str(number)).mkdir()
                for title, picture in self.pictures(name, seen, own).items():
                    figures[title if len(self.scored) == 1 else f"{title}: {visible(name)}"] = picture
            run_report(summary, path, figures=figures)
