"""What the commands' parsers share: short forms of argparse, and messages that name flags.

A command is a module of this package with `add(commands)`; see `docs/adding.md`. It keeps two conventions, so that its
errors name the flag to change: an option's `dest` is the name of the library's argument that it sets (`--name` with
`dest="names"`), and `run` of the parser's defaults is the function that takes the namespace.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import ArgumentError, CheckpointError, DataError, MissingFileError, StructlossError

__all__ = [
    "Parser",
    "add_debug",
    "chosen",
    "command",
    "flags_of",
    "naming_flags",
    "nonnegative",
    "options",
    "positive",
    "values_by_flag",
    "whole",
    "with_flags",
]


class _Help(argparse.RawDescriptionHelpFormatter):
    """Keeps the line ends of texts, and what an option does on the line of its flag."""

    def __init__(self, prog: str, **settings: Any) -> None:
        super().__init__(prog, **{"max_help_position": 34} | settings)


_STYLE: dict[str, Any] = {"formatter_class": _Help, "allow_abbrev": False}


class Parser(argparse.ArgumentParser):
    """A parser that keeps the line ends of its texts and takes flags as they are written, not abbreviated: a script
    still means the same when a command gets another flag.

    Args:
        forwards: know the help only; the command gets a list, `arguments`, and reads it itself.
        parts: then, first arguments that have a help of their own.
        late: adds arguments when the parser is used: those that would cost every other command an import.
        settings: of :class:`argparse.ArgumentParser`.
    """

    def __init__(
        self,
        *,
        forwards: bool = False,
        parts: Sequence[str] = (),
        late: Callable[[argparse.ArgumentParser], object] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(**_STYLE | settings)
        self.forwards, self.parts, self.late = forwards, tuple(parts), late

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        late, self.late = self.late, None
        if late is not None:
            late(self)
        if not self.forwards:
            return super().parse_known_args(args, namespace)
        arguments = [*args]
        if {"-h", "--help"} & {*arguments} and arguments[0] not in self.parts:
            self.print_help()
            self.exit()
        namespace, _ = super().parse_known_args([], namespace)
        namespace.arguments = arguments
        return namespace, []


def add_debug(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error"
    )


def command(
    commands: argparse._SubParsersAction, name: str, text: str, examples: str, **settings: Any
) -> argparse.ArgumentParser:
    """Add a command, or an action of one.

    Args:
        commands: what `add` of a command's module gets, or what `add_subparsers` of a command's parser returns.
        name: to type.
        text: what it does, without a full stop: in the list of commands, and above its own help.
        examples: lines below its help.
        settings: further ones of :class:`Parser`.
    """
    described = {"help": text, "description": f"{text[0].upper()}{text[1:]}.", "epilog": f"examples:\n{examples}"}
    parser = commands.add_parser(name, **_STYLE | described | settings)
    add_debug(parser)
    return parser


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not positive")
    return value


def whole(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value} is not a whole number >= 0")
    return value


def nonnegative(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number >= 0")
    return value


def options(arguments: argparse.Namespace, *apart: str) -> dict[str, Any]:
    """What was given on the command line by name, without those names that stand `apart`: keywords of a function."""
    internal = {"action", "command", "debug", "run", *apart}
    return {name: value for name, value in vars(arguments).items() if name not in internal}


# ---- messages name flags -----------------------------------------------------------------------------------------


def chosen(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> argparse.ArgumentParser:
    """The parser of the command, and of its action, that `arguments` ask for."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction) and (name := getattr(arguments, action.dest, None)):
            return chosen(action._name_parser_map[name], arguments)
    return parser


def flags_of(parser: argparse.ArgumentParser) -> dict[str, str]:
    """Argument -> flag, for the arguments that the options of a parser set.

    Options of nested names, `--data.window` of `data.window`, count by the last part, where only one has it.
    """
    flags = {}
    for action in parser._actions:
        long = [flag for flag in action.option_strings if flag.startswith("--")]
        if long and action.dest.rpartition(".")[2] not in ("debug", "help", "version"):
            flags[action.dest] = long[0]
    last = Counter(name.rpartition(".")[2] for name in flags)
    nested = {name.rpartition(".")[2]: flag for name, flag in flags.items() if "." in name}
    return {name: flag for name, flag in nested.items() if last[name] == 1} | flags


def values_by_flag(flags: Mapping[str, str], arguments: argparse.Namespace) -> dict[str, object]:
    """Flag -> what was given with it, or its default; without what is None."""
    found = {flag: getattr(arguments, name, None) for name, flag in flags.items()}
    return {flag: value for flag, value in found.items() if value is not None}


def with_flags(
    message: str, flags: Mapping[str, str], argument: bool = True, entries: Mapping[str, str] | None = None
) -> str:
    """A message of the library with flags in place of its arguments' names.

    An argument's name is often a plain word, too, so it must stand where a name is meant: names with an underscore
    anywhere, others after "set", "give", "pass" or "choose", and, in the message of a wrong `argument`, in front where
    its value is told: "window is 9, ...", "views and seed are ...", "learned.warmup is 3, ...", "seeds has [1, 1]"; or
    at its end: "..., expected it with data.", "..., but data is given.".

    Args:
        message: of the library.
        flags: argument -> flag.
        argument: whether it is that of a wrong argument.
        entries: the same of what an argument that is a mapping has in it, which is meant in front alone: a message may
            list the names that there are.
    """
    meant = {**flags, **(entries or {})}
    technical = [name for name in flags if "_" in name]
    places = [rf"\b(?:set|give|pass|choose) {_any(flags)}{_END}", rf"{_BEGIN}{_any(technical)}{_END}"]
    if argument:
        nested = [name for name, flag in flags.items() if "." in flag]  # of which an entry may be named, too
        entry = rf"(?:{_any(nested)}(?:\.\w+)+|{_any(meant)})"
        places.append(rf"^(?:{entry}(?:, | and | or ))*{entry}(?= is | are | has [\['])")
        places += [rf"expected it with {_any(flags)}(?=\.$)", rf", but {_any(flags)}(?= is given\.$)"]
    word = re.compile(rf"(?<![\w.-]){_any(meant)}(?!\w)")
    for place in places:
        message = re.sub(place, lambda found: word.sub(lambda name: meant[name[0]], found[0]), message)
    return message


# No part of a flag, of a path or of what is quoted.
_BEGIN, _END = r"(?<![\w./'\"`=-])", r"(?![\w/'\"`=-]|\.\w)"


def _any(names: Iterable[str]) -> str:
    longest_first = sorted(names, key=len, reverse=True)
    return f"(?:{'|'.join(map(re.escape, longest_first)) or '(?!)'})"  # of nothing: what never matches


#: errors whose messages may begin with an argument's name and its value
_OF_ARGUMENTS = (ArgumentError, MissingFileError)


#: and with the file that they are about
_OF_FILES = (MissingFileError, CheckpointError, DataError)


@contextmanager
def naming_flags(
    flags: Mapping[str, str], given: Mapping[str, object] | None = None, entries: Mapping[str, str] | None = None
) -> Iterator[None]:
    """Around what a command does: errors of the library name the flag instead of the argument that it set, and the flag
    of a file that can't be read.

    Args:
        flags: argument -> flag.
        given: flag -> its value, or a list of values.
        entries: of arguments that are mappings, see :func:`with_flags`.
    """
    try:
        yield
    except StructlossError as error:
        if len(error.args) == 1 and isinstance(error.args[0], str):
            message = with_flags(error.args[0], flags, isinstance(error, _OF_ARGUMENTS), entries)
            if isinstance(error, _OF_FILES):
                message = _with_file(message, given or {})
            error.args = (message,)
        raise


def _with_file(message: str, given: Mapping[str, object]) -> str:
    """A message on a file, which it begins with, behind the flag that named it. One that can't be written is left: its
    name tells enough, and not every flag is of files to read."""
    if "can't be written" in message:
        return message
    text = message.removeprefix("checkpoint ")
    for flag, values in given.items():
        for value in values if isinstance(values, list | tuple) else [values]:
            if isinstance(value, str | Path) and str(value):
                for name in (str(value), str(Path(value))):
                    if text.startswith((f"{name} ", f"{name}: ", f"{name}, ")):
                        return f"{flag}: {text}"
    return message
