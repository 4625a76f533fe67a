"""The Lightning command line on our modules, data and recipes, behind `structloss fit`, `validate` and `test`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException

from ..errors import ArgumentError, MissingFileError
from ..files import write_json
from ..harness.callbacks import FiniteLoss, best_checkpoint, figure_table, progress_callback, shown_figures
from ..harness.checkpoint_io import SafeCheckpointIO
from ..harness.hypotheses import hypothesis_tests
from ..harness.last_checkpoint import LastCheckpoint
from ..harness.recipe_files import bounded_parser
from ..harness.restart import Restart, RunFolder, newest_intact, step_of
from ..harness.run_folder import Best, best_of, checkpoint_in, start_in
from ..harness.run_logger import RunLogger
from ..harness.run_loggers import check_loggers, loggers_beside
from ..harness.run_start import RunStart, config_text
from ..harness.systems import LIFTING, REFINE, SYSTEMS, System
from ..harness.training import quiet_lightning
from ..metrics.evaluation import Evaluation
from ..reports.breakdown import breakdown
from ..text import visible
from ._arguments import (
    checkpoint_flag,
    following_network,
    root_folder,
    run_name,
    run_of,
    sampling,
    spelled_out,
    system_in,
    with_loggers,
    with_recipe,
    with_root,
)
from ._checkpoint import Stored, checkpoint_of
from ._parser import flags_of, naming_flags
from ._refusals import parser_sentence, refusals
from ._settings import differing, same_run, settings
from ._trainer import check_trainer

__all__ = ["SUBCOMMANDS", "run"]

#: Where runs are logged and checkpoints kept, relative to the working directory or --trainer.default_root_dir.
RUNS = "runs"
SUBCOMMANDS = ("fit", "validate", "test")
#: flags that are not Lightning's
_SHORT_FORMS = (
    "--fresh",
    "--logger",
    "--tensorboard",
    "--init-from",
    "--loss",
    "--root",
    "--hypotheses",
    "--iterations",
)


class _Parser(LightningArgumentParser):
    """Says in one sentence what it can't read."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        found = getattr(ex, "subcommand_parser", None) or self
        parsers = [found]
        for parser in parsers:  # and those of its commands
            choices = [action.choices for action in parser._actions if isinstance(action.choices, dict)]
            parsers += [command for of in choices for command in of.values() if isinstance(command, _Parser)]
        flags = {flag for parser in parsers for action in parser._actions for flag in action.option_strings}
        for target, source in _CLI.system.links.items():
            message = message.replace(f'Parser key "{target}"', f'Parser key "{source}"')
        print(f"structloss: error: {visible(parser_sentence(message, {*flags, *_SHORT_FORMS}))}", file=sys.stderr)
        self.exit(2)
        raise AssertionError  # exit has raised


class _CLI(LightningCLI):
    """Links what data and model must agree on."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_lightning_class_args(Restart, "restart")
        for target, source in self.system.links.items():
            parser.link_arguments(source, target)
        if self.stored is not None:
            parser.set_defaults(self.stored.defaults())

    fresh = False
    #: names of loggers beside our own
    loggers: ClassVar[tuple[str, ...]] = ()
    #: what is trained or scored
    system: ClassVar[System] = LIFTING
    #: the arguments of the checkpoint that is given
    stored: ClassVar[Stored | None] = None

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        super().parse_arguments(parser, args)
        name = self.config.subcommand
        if not self.config[name].get("config") and self.config[name].get("ckpt_path") is None:
            raise ArgumentError(
                "--config is not given, expected a recipe (your own YAML file, or a name such as repose-tiny: "
                f"structloss {name} --help lists them), or the checkpoint of a run as --ckpt_path."
            )
        seed = self.config[name].get("seed_everything")
        if not 0 <= seed < 2**32:  # true is any, false is none
            raise ArgumentError(f"--seed_everything is {seed}, expected a whole number from 0 to 4294967295.")

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        if self.stored is not None:
            self.stored.settle(config)
        check_trainer(config.trainer.as_dict(), str(self.subcommand))
        if isinstance(start := config.get("model.init_from"), str):
            with naming_flags(flags_of(self._parser(self.subcommand))):
                config["model.init_from"] = start_in(start, Path(config.trainer.default_root_dir or ""))
        self.save_config_kwargs = {"beside": partial(loggers_beside, self.loggers) if self.loggers else None}

    def instantiate_classes(self) -> None:
        given = differing(self._parser(self.subcommand), self.config[self.subcommand])
        with refusals(given), self._naming_flags(given):
            super().instantiate_classes()

    def _run_subcommand(self, subcommand: str) -> None:
        given = differing(self._parser(subcommand), self.config[subcommand])
        given["data.batch_size"] = self.config[subcommand].data.batch_size
        with refusals(given), self._naming_flags(given):
            super()._run_subcommand(subcommand)

    def _naming_flags(self, given: Mapping[str, Any]) -> AbstractContextManager[None]:
        """Around what the settings do: errors name flags, also of what is in settings that are mappings.

        An entry may have the name of another setting, too (data.motion and the network's motion). Then the setting that
        was given is meant, and of two mappings the network's arguments.
        """
        flags = flags_of(self._parser(self.subcommand))
        network = f"model.{self.system.network}_args"
        values = settings(self.config[self.subcommand])
        entries: dict[str, str] = {}
        for name in sorted({*given, network}, key=lambda name: name == network):  # the last one counts
            inner = values.get(name)
            for entry in inner if isinstance(inner, Mapping) else ():
                if flags.get(str(entry), "").removeprefix("--") not in given:
                    entries[str(entry)] = f"--{name}.{entry}"
        return naming_flags({name: flag for name, flag in flags.items() if name not in entries}, None, entries)

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        arguments = super()._prepare_subcommand_kwargs(subcommand)
        logger = self.trainer.logger
        if not isinstance(logger, RunLogger):
            return arguments
        if subcommand != "fit":
            logger.place = partial(_new_test, run_of(arguments.get("ckpt_path")), Path(logger.root_dir))
            if arguments.get("ckpt_path") is None and self.model.hparams["init_from"] is None and _is_first_process():
                print("note: an untrained network is scored; --ckpt_path or --init-from gives weights", file=sys.stderr)
            self.shown = arguments.get("verbose", True)
            arguments["verbose"] = False  # Lightning's table knows no units
        elif arguments.get("ckpt_path") is None and not self.fresh:
            arguments["ckpt_path"] = self._resume(logger)
        return arguments

    #: whether to print what a test comes to
    shown = False
    #: the folder of a run that is resumed, locked
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
        parser = self._parser("fit")
        for folder in sorted(Path(logger.root_dir).glob("version_*"), key=_version, reverse=True):
            run = RunFolder(folder)
            if (
                run.finished
                or not same_run(parser, run.config(), config_text(parser, self.config["fit"]))
                or (_is_first_process() and not self._hold(folder))
            ):
                continue  # over, of another kind, or running in another process
            checkpoint = newest_intact(folder / "checkpoints")
            step = step_of(checkpoint) if checkpoint else 0
            logger.resume(_version(folder), step)
            for callback in self.trainer.callbacks:  # type: ignore[attr-defined]  # a connector gives it to the trainer
                if isinstance(callback, RunStart):
                    callback.resumes = True
            if _is_first_process():
                how = f"resuming {folder} from step {step}" if step else f"starting again in {folder}"
                print(visible(how), flush=True)
            return checkpoint
        return None

    def after_fit(self) -> None:
        logger = self.trainer.logger
        if isinstance(logger, RunLogger) and self.trainer.is_global_zero:
            RunFolder(Path(logger.log_dir)).finish()
            print(_outcome(Path(logger.log_dir), self._chosen_by(), report=self.system != REFINE), flush=True)

    def _chosen_by(self) -> str:
        """The figure by which the best checkpoint was chosen: a module may have another one than its system."""
        callbacks = self.trainer.checkpoint_callbacks
        told = [callback.monitor for callback in callbacks if isinstance(callback, ModelCheckpoint)]
        return next((name for name in told if name), self.system.monitor).removeprefix("val/")

    #: how a network that samples is tested, where it was given
    sampling: ClassVar[dict[str, int]] = {}

    def before_test(self) -> None:
        if self.system != LIFTING:
            return
        more = hypothesis_tests(self.model, **self.sampling)
        self.trainer.callbacks.extend(more)  # type: ignore[attr-defined]  # a connector gives it to the trainer

    def after_test(self) -> None:
        self._write_config()
        found, folder = self.model.evaluation, self.trainer.log_dir  # all processes must ask for the folder
        if found is None or not self.trainer.is_global_zero:
            return
        self._show_figures()
        if isinstance(found, Evaluation):
            print(breakdown(found), flush=True)
        if folder is not None:
            path = write_json(Path(folder) / "test.json", _test_json(found))
            print(visible(f"written to {path}"), flush=True)

    def _show_figures(self) -> None:
        if self.shown and self.trainer.is_global_zero:
            print("\n".join(figure_table({k: float(v) for k, v in self.trainer.callback_metrics.items()})), flush=True)

    def after_validate(self) -> None:
        self._show_figures()
        self._write_config()

    def _write_config(self) -> None:
        """Write the configuration beside what a test came to."""
        if isinstance(self.trainer.logger, RunLogger) and self.trainer.is_global_zero:
            self.trainer.logger.begin()
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]  # a connector gives it to the trainer
            if isinstance(callback, RunStart) and self.trainer.logger is not None:
                callback.write(self.trainer)

    def _parse_ckpt_path(self) -> None:
        """Lightning would let the checkpoint's arguments win over the command line's without a word; ours are compared
        when the checkpoint is loaded, and a difference is an error."""

    #: the one of SUBCOMMANDS that is run: the parsers of the others, which take a while to build, are left out
    wanted: ClassVar[str] = ""

    @classmethod
    def subcommands(cls) -> dict[str, set[str]]:
        return {cls.wanted: LightningCLI.subcommands()[cls.wanted]}


def _test_json(found: Evaluation | dict[str, float]) -> dict[str, Any]:
    """What `test.json` holds: by action, the published measures; the plain MPJPE has a name of its own. Of a refiner it
    is measures alone."""
    if not isinstance(found, Evaluation):
        return {"metrics": found}
    content = asdict(found)
    by_action = content.pop("by_action")
    content["per_subject"] = content.pop("by_subject")
    content["per_action_mpjpe"] = content["per_action"]
    return content | {"per_action": by_action or content["per_action"]}


def _new_test(run: Path | None, other: Path) -> Path:
    """A folder for a test: in the run that is tested, where it is known and can be written."""
    try:
        return RunFolder(run or other).new_test()
    except OSError:
        return RunFolder(other).new_test()


def _outcome(run: Path, chosen_by: str, report: bool) -> str:
    """What to say of a run that has come to its end: the figures of the validation whose checkpoint was kept as the
    best one, that checkpoint, what to type next: a `report`, too, if there is one of such a run."""
    best, checkpoint = best_of(run, chosen_by), checkpoint_in(run)
    lines = ["trained without a validation" if best is None else f"best validation, {_place(best)}"]
    if best is not None:
        lines += [f"  {line}" for line in shown_figures(best.figures)]
    if checkpoint is not None:
        lines += [f"checkpoint: {checkpoint}", f"next: structloss test --ckpt_path {shlex.quote(str(checkpoint))}"]
        lines += [f"      structloss report {shlex.quote(str(run))}"] if report else []
    return "\n".join(map(visible, lines))


def _place(best: Best) -> str:
    return f"step {best.step}, epoch {best.epoch}:"


def _is_first_process() -> bool:
    return rank_zero_only.rank == 0  # type: ignore[attr-defined]  # an attribute that lightning gives its function


def _version(folder: Path) -> int:
    number = folder.name.rpartition("_")[2]
    return int(number) if number.isdigit() else -1


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
def _exit_code_of_signals() -> Iterator[None]:
    """Lightning leaves with code 0 when it is told to stop, with 1 at Ctrl+C; by the shell's convention it is 128 and
    the signal's number."""
    try:
        yield
    except SIGTERMException as error:
        raise SystemExit(143) from error
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise SystemExit(130) from error
        raise


def _full_help(command: str) -> dict[str, Any]:
    """What stands above all options; `fit.py` shows those that are used most, with examples."""
    return {
        "allow_abbrev": False,
        "prog": f"structloss {command}",
        "usage": f"structloss {command} --config RECIPE [options]",
        "description": f"All options. structloss {command} --help shows those that are used most.",
    }


def _configured(cls: type, **arguments: object) -> dict[str, object]:
    """A default in the form the command line's configuration files use, so that they can change it."""
    return {"class_path": f"{cls.__module__}.{cls.__qualname__}", "init_args": arguments}


def run(subcommand: str, arguments: Sequence[str]) -> None:
    """Run one of SUBCOMMANDS with its command-line arguments.

    Raises:
        StructlossError: bad input; the parser itself exits with code 2 for arguments that it can't read.
    """
    arguments = following_network(with_recipe(spelled_out(arguments)))
    _CLI.fresh = "--fresh" in arguments
    arguments, names = with_loggers([argument for argument in arguments if argument != "--fresh"])
    if names and subcommand != "fit":
        raise ArgumentError(f"--logger is given with {subcommand}, expected it with fit.")
    _CLI.loggers = check_loggers(names)
    _CLI.sampling, _CLI.wanted = {}, subcommand
    if subcommand == "test":
        arguments, _CLI.sampling = sampling(with_root(arguments))
    name, runs = run_name(arguments), root_folder(arguments) / RUNS
    arguments = _with_last_checkpoint(arguments, runs / name)
    checkpoint = checkpoint_of(arguments)
    told = system_in(arguments)
    with checkpoint_flag():
        _CLI.stored = None if checkpoint is None else Stored(checkpoint, subcommand, arguments)
    if _CLI.stored is not None:
        _CLI.stored.check_system(told)
    system = _CLI.system = _CLI.stored.system if _CLI.stored is not None else told or SYSTEMS[0]
    module, data = system.classes()
    defaults = {
        "logger": _configured(RunLogger, save_dir=str(runs), name=name),
        "callbacks": [
            best_checkpoint(system.monitor),
            LastCheckpoint(),
            FiniteLoss(),
            progress_callback(),
        ],
        "plugins": [_configured(SafeCheckpointIO)],
        "num_sanity_val_steps": 0,
        "enable_progress_bar": False,  # ours is a callback
        "enable_model_summary": False,
        "log_every_n_steps": 1,
    }
    with quiet_lightning(), _exit_code_of_signals(), bounded_parser():
        _CLI(
            module,
            data,
            save_config_callback=RunStart,
            trainer_class=L.Trainer,
            trainer_defaults=defaults,
            seed_everything_default=0,
            parser_class=_Parser,
            parser_kwargs={"allow_abbrev": False, subcommand: _full_help(subcommand)},
            auto_configure_optimizers=False,
            args=[subcommand, *arguments],
        )
    sys.stdout.flush()
