"""Reading files that somebody else wrote: regular files only, text in any encoding that a byte order mark tells, and
JSON and YAML that can't grow beyond what they are long.

A path may name anything: reading from a pipe waits for ever, reading from a device never ends, and a file may be
there without being readable. Whatever is wrong comes out as one sentence that names the path.
"""

from __future__ import annotations

import codecs
import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from .errors import DataError, MissingFileError, needs_extra

__all__ = [
    "check_yaml",
    "compressed_member",
    "decoded",
    "existing",
    "not_regular",
    "opened",
    "parse_json",
    "parse_yaml",
    "read_bytes",
    "read_json",
    "read_text",
    "read_yaml",
    "regular",
]

#: byte order mark -> encoding; the four bytes of one begin with the two of another
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_YAML_LENGTH = 1 << 18  # characters; configurations have a few thousand, and the parser is slow
_YAML_NODES = 100_000  # with every alias written out


def regular(path: str | os.PathLike[str], what: str) -> Path:
    """The path of a file, or of a link to one.

    Args:
        path: where it should be.
        what: it should be, for messages: "a BVH file".

    Raises:
        MissingFileError: there is nothing, or a directory.
        DataError: a pipe, a device or a socket, or the path can't be followed.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise MissingFileError(f"{path} does not exist, expected {what}.") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise DataError(f"{path} can't be read: {_reason(error)}.") from error
    if stat.S_ISDIR(mode):
        raise MissingFileError(f"{path} is a directory, expected {what}.")
    if not stat.S_ISREG(mode):
        raise DataError(f"{path} is not a regular file, expected {what}.")
    return path


def existing(path: str | os.PathLike[str], what: str) -> Path:
    """The path of a file or of a folder, or of a link to one.

    Raises:
        MissingFileError: there is nothing.
        DataError: a pipe, a device or a socket, or the path can't be followed.
    """
    path = Path(path)
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except (OSError, ValueError):
        is_folder = False
    return path if is_folder else regular(path, what)


def not_regular(path: Path) -> bool:
    """Whether there is something at the path that is neither a file nor a folder: a pipe, a device, a socket."""
    return path.exists() and not path.is_file() and not path.is_dir()


@contextmanager
def opened(path: str | os.PathLike[str], what: str) -> Iterator[BinaryIO]:
    """A regular file, opened to read bytes.

    Raises:
        MissingFileError, DataError: as :func:`regular`, or it can't be read.
    """
    path = regular(path, what)
    try:
        file = open(path, "rb")  # noqa: SIM115  (closed below: what its reader raises is not ours)
    except OSError as error:
        raise DataError(f"{path} can't be read: {_reason(error)}.") from error
    with file:
        yield file


def read_bytes(path: str | os.PathLike[str], what: str) -> bytes:
    """The content of a regular file.

    Raises:
        MissingFileError, DataError: as :func:`opened`.
    """
    with opened(path, what) as file:
        try:
            return file.read()
        except (OSError, MemoryError) as error:
            raise DataError(f"{path} can't be read: {_reason(error)}.") from error


def compressed_member(path: str | os.PathLike[str]) -> str | None:
    """The name of a member of a zip archive that is compressed: of what `torch.save` writes none is, and a small file
    could fill the memory. None where none is, and of a file that is no archive."""
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            found = (entry.filename for entry in archive.infolist() if entry.compress_type != zipfile.ZIP_STORED)
            return next(found, None)
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError):
        return None  # whoever reads it says so


def read_text(path: str | os.PathLike[str], what: str) -> str:
    """The text of a regular file, see :func:`decoded`.

    Raises:
        MissingFileError, DataError: as :func:`opened`.
    """
    return decoded(read_bytes(path, what))


def decoded(content: bytes) -> str:
    """Bytes as text: UTF-8, or what their byte order mark says, which is dropped; bytes that are none of it (names in
    older files) are replaced."""
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return content[len(mark) :].decode(encoding, errors="replace")
    return content.decode("utf-8", errors="replace")


def read_json(path: str | os.PathLike[str], what: str, **settings: Any) -> Any:
    """The content of a JSON file; `settings` are those of `json.loads`.

    Raises:
        MissingFileError, DataError: as :func:`opened`, or no JSON.
    """
    return parse_json(read_text(path, what), str(path), **settings)


def parse_json(text: str, where: str, **settings: Any) -> Any:
    """The content of a JSON text; `where` it is from, for messages.

    Raises:
        DataError: no JSON, or nested too deeply.
    """
    try:
        return json.loads(text, **settings)
    except DataError:  # of a hook among the settings
        raise
    except RecursionError:
        raise DataError(f"{where} is not valid JSON: it is nested too deeply.") from None
    except ValueError as error:  # also a number of thousands of digits
        raise DataError(f"{where} is not valid JSON: {_reason(error)}.") from error


def read_yaml(path: str | os.PathLike[str], what: str) -> Any:
    """The content of a YAML file: mappings, lists, text and numbers, see :func:`parse_yaml`.

    Raises:
        MissingFileError, DataError: as :func:`opened` and :func:`parse_yaml`.
        MissingDependencyError: PyYAML is not installed.
    """
    return parse_yaml(read_text(path, what), str(path))


def parse_yaml(text: str, where: str) -> Any:
    """The content of a YAML text; `where` it is from, for messages.

    Aliases make a few lines stand for any number of values, which hang whoever walks through them. Values are
    therefore counted as if each alias were written out, before any is made.

    Raises:
        DataError: no YAML, one that refers to itself, or of too many characters or values.
        MissingDependencyError: PyYAML is not installed.
    """
    return _bounded_yaml(text, where, lambda loader, root: loader.construct_document(root))


def check_yaml(text: str, where: str) -> None:
    """Raise for a YAML text that :func:`parse_yaml` would not take; nothing of it is made. For texts that a parser of
    somebody else's then reads.

    Raises:
        DataError, MissingDependencyError: as :func:`parse_yaml`.
    """
    _bounded_yaml(text, where, lambda loader, root: None)


def _bounded_yaml(text: str, where: str, make: Callable[[Any, Any], Any]) -> Any:
    with needs_extra("harness"):
        import yaml
    if len(text) > _YAML_LENGTH:
        raise DataError(f"{where} has {len(text)} characters, expected at most {_YAML_LENGTH} of YAML.")
    try:
        loader = yaml.SafeLoader(text)
        try:
            root = loader.get_single_node()
            if root is None:
                return None
            if (values := _nodes(root, where, {})) > _YAML_NODES:
                raise DataError(f"{where} has {values:.3g} values with its aliases, expected at most {_YAML_NODES}.")
            return make(loader, root)
        finally:
            loader.dispose()
    except DataError:
        raise
    except RecursionError:
        raise DataError(f"{where} is not valid YAML: it is nested too deeply.") from None
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, OverflowError) as error:  # also a date that is none
        raise DataError(f"{where} is not valid YAML: {_reason(error)}.") from error


def _nodes(node: Any, where: str, known: dict[int, int | None]) -> int:
    """How many values a YAML node stands for, each alias written out; `known` are those of nodes by their identity,
    None for those that are being counted."""
    if id(node) in known:
        count = known[id(node)]
        if count is None:
            raise DataError(f"{where} has an alias that refers to itself, expected plain values.")
        return count
    known[id(node)] = None
    children = () if isinstance(node.value, str) else node.value
    parts = (part for child in children for part in (child if isinstance(child, tuple) else (child,)))  # key, value
    known[id(node)] = total = 1 + sum(_nodes(part, where, known) for part in parts)
    return total


def _reason(error: BaseException) -> str:
    """What an exception says, on one line, without the path that the sentence names anyway."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())[:160].rstrip(".")
