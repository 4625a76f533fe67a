"""The manifest of many predictions: which inputs are done, which failed and why."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import Any

from ..errors import ArgumentError, DataError, StructlossError
from ..files import held, plain, resolved, write_text
from ..reading import parse_json, read_text

__all__ = ["NAME", "Manifest", "Record"]

NAME = "manifest.jsonl"
_BEGIN = '{"input": "'  # of every line
_KINDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("input", "status", "key"), str),
    **dict.fromkeys(("tracks", "frames"), int),
    **dict.fromkeys(("files", "notes"), list),
    "seconds": (int, float),
    "why": (str, type(None)),
}


@dataclass(frozen=True)
class Record:
    """What became of an input.

    Attributes:
        input: its name.
        status: "done" or "failed".
        why: what is wrong with one that failed.
        files: written, from the folder of results.
        tracks, frames: that were predicted.
        seconds: that it took.
        notes: what the user should know.
        key: of the input and of all settings: another key is another prediction.
    """

    input: str
    status: str
    why: str | None = None
    files: list[str] = field(default_factory=list)
    tracks: int = 0
    frames: int = 0
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    key: str = ""


class Manifest:
    """A file with a record a line, in which a later record of an input counts. It is written line by line, so that
    nothing is lost when the command is killed, and in the order of the inputs at the end.

    Args:
        folder: of the results.

    Raises:
        DataError: it can't be read or written, or is no manifest.
        ArgumentError: another process is writing to it.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self.records = self._read()

    def _read(self) -> dict[str, Record]:
        records: dict[str, Record] = {}
        lines = read_text(self.path, "a manifest of predictions").split("\n") if self.path.exists() else []
        for number, line in enumerate(lines, 1):
            if (record := _record(line)) is not None:
                records[record.input] = record
            elif line.strip() and not _is_torn(line):
                raise DataError(
                    f"line {number} of {self.path} is no record of a prediction, expected a folder whose {NAME} was "
                    "written by this command, or one without any."
                )
        return records

    def __enter__(self) -> Manifest:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with ExitStack() as opened:
                opened.enter_context(held(resolved(self.path.parent)))
                self.records = self._read()  # what another one has written until now
                # what was cut off stands on a line of its own
                torn = self.path.exists() and self.path.read_bytes()[-1:] not in (b"\n", b"")
                self._file = opened.enter_context(open(self.path, "a", encoding="utf-8"))
                self._file.write("\n" if torn else "")
                self._open = opened.pop_all()
        except BlockingIOError as error:
            raise ArgumentError(
                f"{self.path.parent} is written to by another process, expected one prediction of many inputs at a "
                "time."
            ) from error
        except OSError as error:
            raise DataError(f"{self.path} can't be written: {error.strerror or error}.") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def done(self, name: str, key: str) -> Record | None:
        """The record of an input that needs nothing more: done, with this key, its files there."""
        record = self.records.get(name)
        if record is None or record.status != "done" or record.key != key:
            return None
        return record if all((self.path.parent / file).is_file() for file in record.files) else None

    def add(self, record: Record) -> None:
        """Write a record."""
        self.records[record.input] = record
        self._file.write(_line(record))
        self._file.flush()

    def tidy(self, order: Sequence[str]) -> None:
        """Write it anew, a record of each input in this order and of others, of an earlier folder or list, after."""
        names = [name for name in order if name in self.records]
        names += [name for name in self.records if name not in {*order}]
        write_text(self.path, "".join(_line(self.records[name]) for name in names))


def _line(record: Record) -> str:
    return json.dumps(plain(asdict(record)), allow_nan=False) + "\n"


def _is_torn(line: str) -> bool:
    """Whether a line may be the beginning of a record, whose writer was killed."""
    try:
        parse_json(line, "a line")
    except StructlossError:
        return line.startswith(_BEGIN) or _BEGIN.startswith(line)
    return False


def _record(line: str) -> Record | None:
    """A line's record; None of one that was cut off, or that somebody else wrote."""
    try:
        content: Any = parse_json(line, "a line")
    except StructlossError:
        return None
    if not isinstance(content, Mapping) or not {"input", "status"} <= {*content}:
        return None
    known = {entry.name: content[entry.name] for entry in fields(Record) if entry.name in content}
    if not all(isinstance(value, _KINDS[name]) for name, value in known.items()):
        return None
    if not all(isinstance(part, str) for name in ("files", "notes") for part in known.get(name, [])):
        return None
    return Record(**known)
