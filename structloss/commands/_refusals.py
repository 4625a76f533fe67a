"""Errors of other libraries that a user can cause, as sentences: the one place that tells them from faults of ours.

Whoever gives a flag that Lightning, its parser or torch can't use is told so in one line. What remains, an exception in
our own code above all, is a fault of ours and keeps its traceback.
"""

from __future__ import annotations

import difflib
import errno
import re
import traceback
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import ArgumentError, BackendError, DataError, StructlossError, shown

__all__ = ["bounded_memory_and_disk", "parser_sentence", "refusals", "refused"]

_COMMANDS = Path(__file__).resolve().parent
#: what a file system refuses, whatever the program does
_DISK = {
    getattr(errno, name)
    for name in ("EACCES", "EPERM", "EROFS", "ENOSPC", "EDQUOT", "ENOTDIR", "EISDIR", "EEXIST", "ENAMETOOLONG", "EFBIG")
    if hasattr(errno, name)
}
#: settings that are paths; messages begin with the path alone
_FILES = (
    *("data.data", "data.reference", "data.unlabelled", "data.path", "data.val_path", "data.boxes", "data.val_boxes"),
    *("model.init_from", "model.vgg19"),
)
_FULL = {getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EROFS", "EFBIG") if hasattr(errno, name)}
#: what a library raises for settings; others (AttributeError, KeyError, AssertionError, ...) are faults, not refusals
_REFUSING = (ValueError, TypeError, RuntimeError, ImportError, NotImplementedError, OSError, ArithmeticError)


@contextmanager
def bounded_memory_and_disk() -> Iterator[None]:
    """Around any command: memory or disk that runs out, and folders that can't be written, are no faults."""
    try:
        yield
    except StructlossError:
        raise
    except Exception as error:
        found = _of_machine(error, {})
        if found is None:
            raise
        raise found from error


@contextmanager
def refusals(given: Mapping[str, Any]) -> Iterator[None]:
    """Around what Lightning does with our module: see :func:`refused`.

    Args:
        given: name of a setting, "trainer.max_steps" -> its value, of those that differ from the defaults.
    """
    try:
        yield
    except StructlossError as error:
        text = error.args[0] if len(error.args) == 1 else None
        for name in _FILES:
            value = given.get(name)
            if isinstance(text, str) and isinstance(value, str) and value and _begins_with(text, value):
                error.args = (f"--{name} {text}",)
                break
        if isinstance(text, str) and str(given.get("trainer.precision")).startswith("16"):
            error.args = (text.replace("try a lower lr", "try --trainer.precision bf16-mixed, or a lower lr"),)
        raise
    except Exception as error:
        found = refused(error, given)
        if found is None:
            raise
        raise found from error


def _begins_with(message: str, path: str) -> bool:
    """Whether a message begins with a path, as it was given or without what does not matter ("./", a last "/"), or with
    a file in it."""
    return any(re.match(rf"{re.escape(text)}(?![\w.-])", message) for text in (path, str(Path(path))))


def refused(error: BaseException, given: Mapping[str, Any]) -> StructlossError | None:
    """The sentence for an exception of another library that settings caused; None for a fault of ours.

    A library that fails in its own code, called with nothing but the settings, was given what it can't use. Where code
    of ours runs inside, as in a training step, only what has to do with a device counts (memory, precision), and what
    Lightning says of a setting by its name.
    """
    found = _of_machine(error, given) or _of_precision(error, given)
    if found is not None:
        return found
    named = _named(str(error), given)
    about_settings = _outside(error) or (named is not None and _of_lightning(error))
    if type(error).__name__ != "MisconfigurationException" and not (isinstance(error, _REFUSING) and about_settings):
        return None
    text = _first_sentence(error)
    name = named or _valued(str(error), given)
    if name is None:
        return BackendError(f"the trainer stopped: {text}")
    return ArgumentError(f"--{name} is {shown(given[name])}, which can't be used: {text}")


def _of_machine(error: BaseException, given: Mapping[str, Any]) -> StructlossError | None:
    """Memory and disk."""
    names = {kind.__name__ for kind in type(error).__mro__}
    text = _first_sentence(error)
    told = isinstance(error, RuntimeError) and re.search(r"can't allocate memory|out of memory", str(error))
    if told or names & {"OutOfMemoryError", "MemoryError"}:
        if "data.batch_size" not in given or "MemoryError" in names:  # of an array, not of a training step
            return BackendError(f"there is not enough memory: {text}")
        size = given["data.batch_size"]
        return BackendError(
            f"there is not enough memory for --data.batch_size {size}, expected a smaller one, or --trainer.precision "
            f"bf16-mixed: {text}"
        )
    if isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker"):  # wherever it is heard of
        return BackendError(
            f"a process that loads data was ended by the system, which may be out of memory: {text.rstrip('.')}; "
            "resume the run, with a smaller --data.num_workers if need be."
        )
    if isinstance(error, OSError) and error.errno in _FULL and error.filename is None:
        return DataError(f"the disk can't be written: {error.strerror}.")
    if isinstance(error, OSError) and error.errno in _DISK and error.filename is not None:
        return DataError(f"{error.filename} can't be written or read: {error.strerror}.")
    return None


def _of_precision(error: BaseException, given: Mapping[str, Any]) -> StructlossError | None:
    """A type of numbers that an operation of the network or of its losses does not take on this device."""
    precision = given.get("trainer.precision")
    if precision in (None, "32", "32-true", 32) or not isinstance(
        error, (RuntimeError, TypeError, NotImplementedError)
    ):
        return None
    if not re.search(r"(?i)\b(half|float16|bfloat16|double|float64|dtype|scalar type)\b", str(error)):
        return None
    return ArgumentError(
        f"--trainer.precision is {shown(precision)}, which can't be used here: {_first_sentence(error)}"
    )


def _outside(error: BaseException) -> bool:
    """Whether an exception comes from a library that a command called, and not through other code of ours."""
    files = [Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)]
    ours = [file for file in files if file.is_relative_to(_COMMANDS.parent)]
    return bool(files) and files[-1:] != ours[-1:] and all(file.is_relative_to(_COMMANDS) for file in ours[-1:])


def _of_lightning(error: BaseException) -> bool:
    """Whether it is Lightning that raised an exception."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and "lightning" in Path(frames[-1].filename).parts


def _named(message: str, given: Mapping[str, Any]) -> str | None:
    """The setting that a message names, the first of several."""
    last = {name: name.rpartition(".")[2] for name in given}
    named = [name for name in given if re.search(rf"\b{re.escape(last[name])}\b", message)]
    return min(named, key=lambda name: message.index(last[name]), default=None)


def _valued(message: str, given: Mapping[str, Any]) -> str | None:
    """The setting whose value a message names, with hyphens or underscores."""
    plain = message.casefold().replace("-", "_")
    for name, value in given.items():
        if isinstance(value, str) and repr(value) in message:
            return name
        texts = [text.rpartition(".")[2].casefold().replace("-", "_") for text in _texts(value)]
        if any(len(text) > 2 and text in plain for text in texts):
            return name
    return None


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _texts(part)


def _first_sentence(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    problem = [i for i, line in enumerate(lines) if "Problem with given class_path" in line]
    if problem:  # of the many lines of a parser, the one of the class that was meant
        lines = [re.sub(r".*(Problem with)", r"\1", " ".join(lines[problem[0] : problem[0] + 2]))]
    text = re.split(r"(?<=[^\d][.!?])\s+(?=[A-Z])", lines[0])[0] if lines else type(error).__name__
    text = text if len(text) <= 240 else f"{text[:240]}..."
    return text if text.endswith(".") else f"{text.rstrip('!:')}."


# ---- the parser ----------------------------------------------------------------------------------------------------

_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "NoneType": "null",
    "timedelta": "a time span",
    "dict": "a mapping, as in '{name: value}'",
    "list": "a list, as in '[a, b]'",
}


def parser_sentence(message: str, flags: Collection[str]) -> str:
    """What jsonargparse has to say, in one sentence that names the flag.

    Args:
        message: its own, of many lines.
        flags: those that there are.
    """
    if found := re.match(r'Parser key "([\w.]+)"', message):
        return _of_value(found[1], message)
    if found := re.match(r"[Uu]nrecognized arguments: (.*)", message, re.S):
        flag = found[1].split()[0].partition("=")[0] if found[1].split() else ""
        return f"unrecognized arguments: {' '.join(found[1].split())}{_near(flag, flags)}"
    if found := re.match(r"argument (\S+): expected (.*)", message):
        flag = next(part for part in reversed(found[1].rstrip("+").split("/")) if part.startswith("--"))
        return f"{flag.rstrip('+')} has no value, expected {found[2]}."
    if found := re.search(r"does not accept (?:option|nested key) '([\w.]+)'", message):
        near = _near(f"--{found[1]}", flags).replace("--", "")
        return f"--config has {found[1]}, expected settings that there are{near}"
    if found := re.match(r'Linked "([\w.]+)" must be given via "([\w.]+)"', message):
        return f"--{found[1]} is given, expected it as --{found[2]} alone."
    if found := re.match(r"Unexpected config: (.*)", message, re.S):
        text = shown(found[1].strip())
        return f"--config holds {text}, expected a recipe: a mapping with model, data and trainer."
    if found := re.match(r"the following arguments are required: (.*)", message):
        return f"{found[1]} is missing among the arguments of a class that is given, expected a value."
    return _one_line(message)


def _near(flag: str, flags: Collection[str]) -> str:
    near = difflib.get_close_matches(flag, sorted(flags), n=1, cutoff=0.8) if flag.startswith("--") else []
    return f"; did you mean {near[0]}?" if near else "."


def _of_value(key: str, message: str) -> str:
    """A value of a wrong kind."""
    value = re.search(r"Given value: (.*)", message) or re.search(r"Got value: (.*)", message)
    if value is None and (found := re.search(r"Unable to load config '(.*)'", message)):
        return (
            f"--{key} is {shown(found[1])}, expected a YAML file or a mapping; single values are set by --{key}.NAME."
        )
    if value is None:
        return f"--{key} can't be used: {_one_line(message.partition(chr(10))[2] or message)}"
    if kinds := re.search(r"Subtypes: \[(.*)\]$", message, re.M):
        expected = kinds[1]
    else:
        single = re.search(r"Expected a (.*?)\. Got value", message, re.S)
        expected = single[1] if single else ""
    of_parts = re.search(r"Given value type: <class '(dict|list|.*Namespace)'>", message)
    if of_parts and (entry := re.search(r"- Expected a <class '(\w+)'>\. Got value: (.*)", message)):
        word = _WORDS.get(entry[1], f"a {entry[1]}")
        return f"--{key} is {shown(value[1])}, expected {word} where it has {shown(entry[2])}."
    words = sorted(dict.fromkeys(_kinds(expected)), key=lambda word: word == "null")  # jsonargparse's order varies
    if not words:
        return f"--{key} can't be used: {_one_line(message.partition(chr(10))[2])}"
    choice = " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))
    return f"--{key} is {shown(value[1].strip())}, expected {choice}."


def _kinds(text: str) -> Iterator[str]:
    """Types as jsonargparse prints them, in words."""
    for literal, name in re.findall(r"Literal\[([^\]]*)\]|<class '([\w.]+)'>|\b(?:dict|list|Iterable)\[", text):
        if literal:
            yield from (part.strip().strip("'") for part in literal.split(","))
        elif name:
            last = name.rpartition(".")[2]
            yield _WORDS.get(last, f"a {last}")
    for container in dict.fromkeys(re.findall(r"\b(dict|list)\[", text)):
        yield _WORDS[container]


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    line = line if len(line) <= 300 else f"{line[:300]}..."
    return line if line.endswith(".") else f"{line}."
