"""The Lightning command line on our module, data and recipes, behind `structloss fit`, `validate` and `test`."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException

from ..data import MotionDataModule
from ..errors import ArgumentError, MissingDependencyError, MissingFileError, how_to_install
from ..files import write_json
from ..harness.callbacks import FiniteLoss, progress_callback
from ..harness.checkpoint_io import SafeCheckpointIO
from ..harness.finetuning import following_network
from ..harness.hypotheses import hypothesis_tests
from ..harness.lifting import LiftingModule
from ..harness.recipe_files import recipe_path
from ..harness.restart import Restart, RunFolder, newest_intact, step_of
from ..harness.run_logger import RunLogger
from ..harness.training import quiet_lightning
from ..metrics.evaluation import Evaluation
from ..reports.breakdown import breakdown
from ._checkpoint import Stored, checkpoint_of
from ._parser import flags_of, naming_flags

__all__ = ["SUBCOMMANDS", "run"]

#: Where runs are logged and checkpoints kept, relative to the working directory.
RUNS = "runs"
SUBCOMMANDS = ("fit", "validate", "test")


class _CLI(LightningCLI):
    """Links what data and model must agree on."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_lightning_class_args(Restart, "restart")
        parser.link_arguments("data.target", "model.target")
        parser.link_arguments("data.skeleton", "model.skeleton")
        parser.link_arguments("seed_everything", "data.seed")
        parser.link_arguments("seed_everything", "model.seed")
        if self.stored is not None:
            parser.set_defaults(self.stored.defaults())

    fresh = False
    tensorboard = False
    #: the arguments of the checkpoint that is given
    stored: ClassVar[Stored | None] = None

    def before_instantiate_classes(self) -> None:
        if self.stored is not None:
            self.stored.settle(self.config[self.subcommand])

    def instantiate_classes(self) -> None:
        with naming_flags(flags_of(self._parser(self.subcommand))):
            super().instantiate_classes()

    def _run_subcommand(self, subcommand: str) -> None:
        with naming_flags(flags_of(self._parser(subcommand))):
            super()._run_subcommand(subcommand)

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        arguments = super()._prepare_subcommand_kwargs(subcommand)
        logger = self.trainer.logger
        if subcommand == "fit" and isinstance(logger, RunLogger):
            if arguments.get("ckpt_path") is None and not self.fresh:
                arguments["ckpt_path"] = self._resume(logger)
            if self.held is None and _is_first_process():
                self._begin(logger)
            if self.tensorboard:
                self.trainer.loggers = [*self.trainer.loggers, _tensorboard(logger)]
        return arguments

    #: the folder of the run, locked
    held: ExitStack | None = None

    def _hold(self, folder: Path) -> bool:
        """Lock a run's folder; False if another process runs in it."""
        held = ExitStack()
        if held.enter_context(RunFolder(folder).locked()):
            self.held = held
            return True
        held.close()
        return False

    def _resume(self, logger: RunLogger) -> Path | None:
        """Find the unfinished run of the same configuration and enter its folder; its checkpoint, or None to begin."""
        config = _settings(self._parser("fit").dump(self.config["fit"], skip_none=False))
        for folder in sorted(Path(logger.root_dir).glob("version_*"), key=_version, reverse=True):
            run = RunFolder(folder)
            if (
                run.finished
                or _settings(run.config() or "") != config
                or (_is_first_process() and not self._hold(folder))
            ):
                continue  # over, of another kind, or running in another process
            checkpoint = newest_intact(folder / "checkpoints")
            step = step_of(checkpoint) if checkpoint else 0
            logger.resume(_version(folder), step)
            if _is_first_process():
                print(f"resuming {folder} from step {step}" if step else f"starting again in {folder}", flush=True)
            return checkpoint
        return None

    def _begin(self, logger: RunLogger) -> None:
        """Take a new folder."""
        version = logger.version
        assert isinstance(version, int)  # of a CSV logger that was given none
        while not self._hold(Path(logger.root_dir) / f"version_{version}"):
            version += 1
        logger.resume(version, 0)

    def after_fit(self) -> None:
        if isinstance(self.trainer.logger, RunLogger) and self.trainer.is_global_zero:
            RunFolder(Path(self.trainer.logger.log_dir)).finish()

    #: how a network that samples is tested, where it was given
    sampling: ClassVar[dict[str, int]] = {}

    def before_test(self) -> None:
        more = hypothesis_tests(self.model, **self.sampling)
        self.trainer.callbacks.extend(more)  # type: ignore[attr-defined]  # a connector gives it to the trainer

    def after_test(self) -> None:
        found, folder = self.model.evaluation, self.trainer.log_dir  # all processes must ask for the folder
        if found is None or not self.trainer.is_global_zero:
            return
        print(breakdown(found), flush=True)
        if folder is not None:
            path = write_json(Path(folder) / "test.json", _test_json(found))
            print(f"written to {path}", flush=True)

    def _parse_ckpt_path(self) -> None:
        """Lightning would let the checkpoint's arguments win over the command line's without a word; ours are compared
        when the checkpoint is loaded, and a difference is an error."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        ours = LightningCLI.subcommands()
        return {name: ours[name] for name in SUBCOMMANDS}


def _test_json(found: Evaluation) -> dict[str, Any]:
    """What `test.json` holds: by action, the published measures; the plain MPJPE has a name of its own."""
    content = asdict(found)
    by_action = content.pop("by_action")
    content["per_subject"] = content.pop("by_subject")
    content["per_action_mpjpe"] = content["per_action"]
    return content | {"per_action": by_action or content["per_action"]}


def _is_first_process() -> bool:
    return rank_zero_only.rank == 0  # type: ignore[attr-defined]  # an attribute that lightning gives its function


def _version(folder: Path) -> int:
    number = folder.name.rpartition("_")[2]
    return int(number) if number.isdigit() else -1


def _tensorboard(logger: RunLogger) -> Logger:
    """TensorBoard's logger for the folder of a run."""
    try:
        from lightning.pytorch.loggers import TensorBoardLogger

        # Of a run that is resumed, what was logged after the checkpoint is to be left out.
        purge: dict[str, Any] = {"purge_step": logger.first_step} if logger.first_step else {}
        return TensorBoardLogger(logger.save_dir, logger.name, version=logger.version, **purge)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"--tensorboard needs tensorboard, which is not installed: {how_to_install('tensorboard')}."
        ) from error


def _with_recipe_paths(arguments: Sequence[str]) -> list[str]:
    """Replace `--config NAME` by the path of the packaged recipe."""
    out = list(arguments)
    for i, argument in enumerate(out):
        if argument in ("--config", "-c") and i + 1 < len(out):
            out[i + 1] = str(recipe_path(out[i + 1]))
        elif argument.startswith("--config="):
            out[i] = f"--config={recipe_path(argument.removeprefix('--config='))}"
    return out


def _with_init_from(arguments: Sequence[str]) -> list[str]:
    """Spell out `--init-from FILE`, the short form of `--model.init_from FILE`."""
    return [
        re.sub(r"^--init[-_]from(?==|$)", "--model.init_from", argument) if argument.startswith("--init") else argument
        for argument in arguments
    ]


def _with_root(arguments: Sequence[str]) -> list[str]:
    """Spell out `--root WORD`, the short form of `--model.root WORD`."""
    return [re.sub(r"^--root(?==|$)", "--model.root", argument) for argument in arguments]


def _with_loss(arguments: Sequence[str]) -> list[str]:
    """Spell out `--loss learned`: a loss network with the recipe's settings, or the defaults."""
    out = list(arguments)
    for i, argument in enumerate(out):
        if argument == "--loss" or argument.startswith("--loss="):
            apart = argument == "--loss"
            value = "".join(out[i + 1 : i + 2]) if apart else argument.removeprefix("--loss=")
            if value != "learned":
                raise ArgumentError(
                    f"--loss is {value!r}, expected 'learned'; other losses are set by --model.objective."
                )
            out[i : i + 1 + apart] = ["--model.learned.enabled=true"]
            break
    return out


def _sampling(arguments: Sequence[str]) -> tuple[list[str], dict[str, int]]:
    """The arguments without `--hypotheses N` and `--iterations N`, and those that were given."""
    parser = argparse.ArgumentParser(prog="structloss test", add_help=False, allow_abbrev=False)
    for flag in ("--hypotheses", "--iterations"):
        parser.add_argument(flag, type=int)
    given, rest = parser.parse_known_args(arguments)
    return rest, {name: number for name, number in vars(given).items() if number is not None}


def _run_name(arguments: Sequence[str]) -> str:
    for flag, value in zip(arguments, [*arguments[1:], ""], strict=True):
        if flag in ("--config", "-c"):
            return os.path.splitext(os.path.basename(value))[0]
        if flag.startswith("--config="):
            return os.path.splitext(os.path.basename(flag.removeprefix("--config=")))[0]
    return "lifting"


def _with_last_checkpoint(arguments: Sequence[str], runs: Path) -> list[str]:
    """Replace `--ckpt_path last` by the newest checkpoint of the recipe's earlier runs.

    Lightning looks in the folder of the run that is just beginning, finds nothing and starts anew.
    """
    out = list(arguments)
    for i, argument in enumerate(out):
        if argument == "--ckpt_path=last" or (argument == "--ckpt_path" and out[i + 1 : i + 2] == ["last"]):
            found = sorted(runs.glob("version_*/checkpoints/last.ckpt"), key=lambda path: path.stat().st_mtime)
            if not found:
                raise MissingFileError(
                    f"no earlier run has a checkpoint under {runs}, expected one for --ckpt_path last."
                )
            out[i : i + (1 if "=" in argument else 2)] = [f"--ckpt_path={found[-1]}"]
            break
    return out


@contextmanager
def _exit_code_of_sigterm() -> Iterator[None]:
    """Lightning leaves with code 0 when it is told to stop; the shell's convention is 128 + 15."""
    try:
        yield
    except SIGTERMException as error:
        raise SystemExit(143) from error


def _full_help(command: str) -> dict[str, Any]:
    """What stands above all options; `fit.py` shows those that are used most, with examples."""
    return {
        "allow_abbrev": False,
        "prog": f"structloss {command}",
        "usage": f"structloss {command} --config RECIPE [options]",
        "description": f"All options. structloss {command} --help shows those that are used most.",
    }


def _settings(config: str) -> list[str]:
    """Lines of a configuration but for Lightning's version above them: a newer one resumes a run all the same. And but
    for the root: it changes nothing in training, and runs from before there was that setting lack it."""
    return [line for line in config.splitlines() if not line.startswith(("#", "  root:"))]


def _configured(cls: type, **arguments: object) -> dict[str, object]:
    """A default in the form the command line's configuration files use, so that they can change it."""
    return {"class_path": f"{cls.__module__}.{cls.__qualname__}", "init_args": arguments}


def run(subcommand: str, arguments: Sequence[str]) -> None:
    """Run one of SUBCOMMANDS with its command-line arguments.

    Raises:
        StructlossError: bad input; the parser itself exits with code 2 for arguments that it can't read.
    """
    arguments = following_network(_with_loss(_with_init_from(_with_recipe_paths(arguments))))
    _CLI.fresh, _CLI.tensorboard = "--fresh" in arguments, "--tensorboard" in arguments
    arguments = [argument for argument in arguments if argument not in ("--fresh", "--tensorboard")]
    _CLI.sampling = {}
    if subcommand == "test":
        arguments, _CLI.sampling = _sampling(_with_root(arguments))
    name = _run_name(arguments)
    arguments = _with_last_checkpoint(arguments, Path(RUNS) / name)
    checkpoint = checkpoint_of(arguments)
    _CLI.stored = None if checkpoint is None else Stored(checkpoint, subcommand, arguments)
    defaults = {
        "logger": _configured(RunLogger, save_dir=RUNS, name=name),
        "callbacks": [
            ModelCheckpoint(monitor="val/mpjpe", filename="best-{epoch}", save_last=True, enable_version_counter=False),
            FiniteLoss(),
            progress_callback(),
        ],
        "plugins": [_configured(SafeCheckpointIO)],
        "num_sanity_val_steps": 0,
        "enable_progress_bar": sys.stdout.isatty(),  # PlainProgress prints lines instead
        "log_every_n_steps": 1,
    }
    with quiet_lightning(), _exit_code_of_sigterm():
        _CLI(
            LiftingModule,
            MotionDataModule,
            trainer_class=L.Trainer,
            trainer_defaults=defaults,
            seed_everything_default=0,
            save_config_kwargs={"overwrite": True},
            auto_configure_optimizers=False,
            parser_kwargs={"allow_abbrev": False, **{name: _full_help(name) for name in SUBCOMMANDS}},
            args=[subcommand, *arguments],
        )
    sys.stdout.flush()
