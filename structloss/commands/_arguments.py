"""Arguments of `structloss fit`, `validate` and `test` before Lightning's parser reads them: names of recipes, short
forms of our own, and what must be known before the rest is."""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..errors import ArgumentError, CheckpointError, MissingFileError, StructlossError
from ..harness.finetuning import RECIPE, settings_of_network
from ..harness.recipe_files import recipe_names, recipe_path
from ..harness.systems import SYSTEMS, System, system_of
from ..reading import read_yaml

__all__ = [
    "checkpoint_flag",
    "following_network",
    "root_folder",
    "run_name",
    "run_of",
    "sampling",
    "spelled_out",
    "system_in",
    "values_of",
    "with_recipe",
    "with_root",
]


def spelled_out(arguments: Sequence[str]) -> list[str]:
    """Short forms as what they stand for: `--init-from FILE`, `--loss learned`."""
    return _with_loss(_with_init_from(arguments))


def _with_init_from(arguments: Sequence[str]) -> list[str]:
    """Spell out `--init-from FILE`, the short form of `--model.init_from FILE`."""
    return [re.sub(r"^--init[-_]from(?==|$)", "--model.init_from", argument) for argument in arguments]


def with_loggers(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Take out `--logger NAME`, which may be there several times and have several names, and `--tensorboard`, an
    earlier form of `--logger tensorboard`; the other arguments, and the names.

    Raises:
        ArgumentError: no name follows.
    """
    left, names = [], []
    rest = iter(arguments)
    for argument in rest:
        flag, equals, value = argument.partition("=")
        if argument == "--tensorboard":
            names.append("tensorboard")
        elif flag == "--logger":
            value = value if equals else next(rest, "")
            if not value or value.startswith("-"):
                raise ArgumentError("--logger has no value, expected csv, tensorboard, wandb or mlflow.")
            names += [name for name in value.split(",") if name]
        else:
            left.append(argument)
    return left, names


def with_root(arguments: Sequence[str]) -> list[str]:
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


def sampling(arguments: Sequence[str]) -> tuple[list[str], dict[str, int]]:
    """The arguments without `--hypotheses N` and `--iterations N`, and those that were given."""
    parser = argparse.ArgumentParser(prog="structloss test", add_help=False, allow_abbrev=False)
    for flag in ("--hypotheses", "--iterations"):
        parser.add_argument(flag, type=int)
    given, rest = parser.parse_known_args(arguments)
    return rest, {name: number for name, number in vars(given).items() if number is not None}


def with_recipe(arguments: Sequence[str]) -> list[str]:
    """Replace `--config NAME` by the path of the packaged recipe.

    Raises:
        ArgumentError, MissingFileError, DataError, UnknownNameError: it can't be read.
    """
    out = list(arguments)
    for i, argument in enumerate(out):
        if argument in ("--config", "-c") and i + 1 < len(out):
            out[i + 1] = str(_recipe(out[i + 1]))
        elif argument.startswith("--config="):
            out[i] = f"--config={_recipe(argument.removeprefix('--config='))}"
    return out


def _recipe(name: str) -> Path:
    if not name:
        raise ArgumentError("--config is '', expected a YAML file or the name of a recipe.")
    path = Path(name)
    as_name = path.suffix not in (".yaml", ".yml") and path.parent == Path()  # what is a path is read as YAML
    if path.exists() and (path.is_dir() or as_name) and name not in recipe_names():
        what = "a directory" if path.is_dir() else "no .yaml file"
        raise ArgumentError(f"--config is {name!r}, {what}, expected a YAML file or the name of a recipe.")
    try:
        return recipe_path(name)
    except StructlossError as error:
        raise type(error)(f"--config: {error}") from error


@contextmanager
def checkpoint_flag() -> Iterator[None]:
    """Around the reading of `--ckpt_path`: errors name the flag."""
    try:
        yield
    except (MissingFileError, CheckpointError) as error:
        raise type(error)(re.sub(r"^(checkpoint )?", "--ckpt_path: ", str(error), count=1)) from error


def root_folder(arguments: Sequence[str]) -> Path:
    """Where runs are to be: `--trainer.default_root_dir`, of the command line or else of the recipe; or here."""
    given = next(reversed(values_of(arguments, "--trainer.default_root_dir")), None)
    for recipe in values_of(arguments, "--config", "-c") if given is None else ():
        content = read_yaml(recipe, "a recipe")
        trainer = content.get("trainer") if isinstance(content, dict) else None
        given = trainer.get("default_root_dir", given) if isinstance(trainer, dict) else given
    return Path() if given in (None, "null") else Path(str(given))


def values_of(arguments: Sequence[str], *flags: str) -> list[str]:
    """The values that a flag, in any of its spellings, is given, in their order: `FLAG VALUE` or `FLAG=VALUE`."""
    found: list[str] = []
    for given, following in zip(arguments, [*([argument] for argument in arguments[1:]), []], strict=False):
        flag, equals, value = given.partition("=")
        if flag in flags:
            found += [value] if equals else following
    return found


def following_network(arguments: Sequence[str]) -> list[str]:
    """Where the arguments are of the recipe for fine-tuning and name a network, flags for what it takes follow the
    recipe. Flags of the user come after them and win.

    Raises:
        UnknownNameError: an unknown backbone.
    """
    recipe = str(recipe_path(RECIPE))
    places = [i for i, argument in enumerate(arguments, 1) if argument in (recipe, f"--config={recipe}")]
    backbones = values_of(arguments, "--model.backbone")
    if not backbones or not places:
        return list(arguments)
    own = settings_of_network(backbones[-1])
    flags = [f"--{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in own.items()]
    return [*arguments[: places[-1]], *flags, *arguments[places[-1] :]]


def system_in(arguments: Sequence[str]) -> System | None:
    """What the arguments train or score, told by a flag, or by the last recipe that names a network; None where none
    does.

    Raises:
        ArgumentError: a recipe with networks of two systems.
    """
    flags = [{s.network: given[-1]} for s in SYSTEMS if (given := values_of(arguments, f"--model.{s.network}"))]
    recipes = [read_yaml(recipe, "a recipe") for recipe in reversed(values_of(arguments, "--config", "-c"))]
    models = [*flags, *(recipe.get("model") for recipe in recipes if isinstance(recipe, dict))]
    named = [model for model in models if isinstance(model, dict) and any(model.get(s.network) for s in SYSTEMS)]
    try:
        return system_of(*named) if named else None
    except ArgumentError as error:
        raise ArgumentError(f"--config: {error}") from error


def run_of(checkpoint: str | os.PathLike[str] | None) -> Path | None:
    """The folder of the run that a checkpoint belongs to: the one with its folder `checkpoints`."""
    if checkpoint is None:
        return None
    folder = Path(checkpoint).parent
    return folder.parent if folder.name == "checkpoints" and Path(checkpoint).is_file() else None


def run_name(arguments: Sequence[str]) -> str:
    """What runs of a recipe are called: its name without folder and ending."""
    named = (Path(recipe).stem for recipe in values_of(arguments, "--config", "-c"))
    return next(named, (system_in(arguments) or SYSTEMS[0]).name)
