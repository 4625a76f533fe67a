"""What a checkpoint says of its run: `--ckpt_path` needs neither the recipe nor the network's arguments again."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import ArgumentError
from ..harness.load import trained_arguments
from ..harness.systems import System
from ._arguments import values_of

__all__ = ["Stored", "checkpoint_of"]


class Stored:
    """The arguments of a training checkpoint, which stand between the defaults and what is given.

    A recipe and flags win over them, but for those that decide which network it is: these are the checkpoint's, and a
    flag that says otherwise is an error.

    Args:
        path: file of `--ckpt_path`.
        subcommand: "fit", "validate" or "test".
        arguments: the command line, which tells what was given.

    Raises:
        MissingFileError, CheckpointError: no such file, or no training checkpoint.
    """

    def __init__(self, path: str, subcommand: str, arguments: Sequence[str]) -> None:
        self.path, self._arguments = path, arguments
        self.system, model, self._data = trained_arguments(path)
        #: the weights to start from have been started from; the others are of use in training only
        without = ("init_from",) if subcommand == "fit" else ("init_from", "learned", "structure_aware")
        self._model = {name: value for name, value in model.items() if name not in without}

    def check_system(self, told: System | None) -> None:
        """Raise where the command line names a network of another kind than the checkpoint's.

        Args:
            told: what the recipes and flags are of; None where they don't say.

        Raises:
            ArgumentError: it is another.
        """
        if told is not None and told != self.system:
            flagged = self._flagged("model", told.network)
            where = f"--model.{told.network}" if flagged else "--config"
            raise ArgumentError(
                f"checkpoint {self.path} is of {self.system.says}, expected one of {told.says}, as {where} says."
            )

    def defaults(self) -> dict[str, Any]:
        """Name on the command line -> value, for what is not given there."""
        linked, cut = self.system.linked, self.system.cut
        found = {f"model.{name}": value for name, value in self._model.items() if name not in linked}
        data = self._data if self._same_data() else {k: v for k, v in self._data.items() if k in cut}
        found |= {f"data.{name}": value for name, value in data.items() if name != "seed"}
        found |= {f"data.{name}": self._model[name] for name in self.system.shared if name in self._model}
        if "seed" in self._model:
            found["seed_everything"] = self._model["seed"]
        return found

    def settle(self, config: Any) -> None:
        """Give a parsed configuration the checkpoint's network.

        Args:
            config: jsonargparse's namespace of the subcommand, changed in place.

        Raises:
            ArgumentError: a flag, or the network of a recipe, says otherwise.
        """
        network = self.system.network
        for name, section in self.system.decides.items():
            if name not in self._model:
                continue
            ours, theirs = self._model[name], config.get(f"{section}.{name}")
            if self._same(name, ours, theirs):
                continue
            flagged = self._flagged(section, name)
            if flagged or name == network:
                where = f"--{section}.{name}" if flagged else "--config"
                raise ArgumentError(
                    f"checkpoint {self.path} is of a model with {name} {ours!r}, expected {_plain(theirs)!r}, as "
                    f"{where} says; without {where} it is taken from the checkpoint."
                )
            for key in {f"{section}.{name}", f"model.{name}"}:
                config[key] = ours
            if name == f"{network}_args":  # of another size than the recipe's: windows were cut in another way
                for cut in self.system.windows:
                    if cut in self._data and not self._flagged("data", cut):
                        config[f"data.{cut}"] = self._data[cut]

    def _flagged(self, section: str, name: str) -> bool:
        return any(re.match(rf"--{section}(\.{name}([.=+]|$)|=|$)", given) for given in self._arguments)

    def _same(self, name: str, ours: Any, theirs: Any) -> bool:
        if name == self.system.network:
            return self.system.full_name(ours) == self.system.full_name(theirs)
        return (_plain(ours) or None) == (_plain(theirs) or None)

    def _same_data(self) -> bool:
        """Whether the data are those of the run: nothing else is given."""
        if any(given.startswith(("--config", "-c")) or re.match("--data(=|$)", given) for given in self._arguments):
            return False
        known, paths = self._data.get("data"), values_of(self._arguments, "--data.data")
        return all(isinstance(known, str) and os.path.realpath(path) == os.path.realpath(known) for path in paths)


def checkpoint_of(arguments: Sequence[str]) -> str | None:
    """The file that `--ckpt_path` names; None where it is not given."""
    return next(iter(values_of(arguments, "--ckpt_path")), None) or None


def _plain(value: Any) -> Any:
    """As YAML has it, to compare."""
    if hasattr(value, "as_dict"):
        value = value.as_dict()
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value
