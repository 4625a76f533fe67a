"""What a pickle would take, told from its opcodes before anything is made of them.

A few bytes of a pickle can ask for a table of gigabytes, for containers by the million, or for keys whose hash takes
for ever: tuples that hold each other twice, forty levels deep. Unpickling can't be interrupted, so the stream is
walked through first, with a number in place of every object: the values that it holds, each one that is shared as
often as it is there.
"""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

__all__ = ["Excess", "check_pickle"]

_MEMORY = 64 << 20  # bytes that any pickle may take, ...
_GROWTH = 16  # ... and bytes per byte of a long one; words and numbers take 2 to 8
_WORK = 10_000  # values that any pickle may hash, and per opcode of a long one:
_WORK_GROWTH = 20
_LONG_KEY = 1000  # values that a number of any length counts for as a key: there are as many of one hash as one likes

#: opcode -> bytes that follow it, and bytes of memory for what it pushes
_PUSHED = {
    **dict.fromkeys(b"N\x88\x89)\x97", (0, 8)),  # None, True, False, (), an out-of-band buffer
    **{op: (size, 32) for op, size in {b"J"[0]: 4, b"K"[0]: 1, b"M"[0]: 2, b"G"[0]: 8}.items()},
    **{op: (size, 8) for op, size in {0x82: 1, 0x83: 2, 0x84: 4}.items()},  # extensions, which are refused
    b"]"[0]: (0, 64),
    b"}"[0]: (0, 232),
    0x8F: (0, 216),  # a set
}
#: opcode -> format and size of the length that follows it, before as many bytes
_COUNTED = {
    **dict.fromkeys((0x8C, ord("C"), ord("U"), 0x8A), ("<B", 1)),
    **dict.fromkeys((ord("X"), ord("B"), ord("T"), 0x8B), ("<I", 4)),
    **dict.fromkeys((0x8D, 0x8E, 0x96), ("<Q", 8)),
}
_LINES = {**dict.fromkeys(b"IFSVPL", 1), ord("c"): 2}  # opcode -> lines that follow it
_LONGS = (0x8A, 0x8B, ord("L"))
_REPLACED = {ord("R"): 2, 0x81: 2, 0x92: 3, 0x93: 2, ord("Q"): 1, ord("b"): 2}  # opcode -> operands of its result
_TUPLES = {0x85: 1, 0x86: 2, 0x87: 3}


class Excess(Exception):
    """A pickle asks for more than a data file has; the text says what that is."""


def check_pickle(file: BinaryIO, size: int) -> None:
    """Raise :class:`Excess` unless the pickle that begins here can be made of no more than it is long.

    Args:
        file: positioned at its first byte; left after its last.
        size: of what there is to read, bytes.

    Raises:
        Excess: it asks for too much.
        ValueError, EOFError, IndexError, struct.error: it is no pickle, or it is cut off.
    """
    _Scan(file, size).run()


class _Scan:
    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.size = file, size
        self.stack: list[int] = []  # of each object, the values in it: 1, more only for tuples
        self.marks: list[int] = []
        self.memo: dict[int, int] = {}  # of objects of more than 1
        self.memoized = self.put = 0  # entries
        self.opcodes = self.memory = self.work = 0

    def run(self) -> None:
        read, push, take, from_bytes = self.file.read, self.stack.append, self._take, int.from_bytes
        pushed, memo, rare = _PUSHED, self.memo, self._rare
        most = _MEMORY + _GROWTH * self.size
        while self.memory <= most:
            byte = read(1)
            if not byte:
                raise EOFError("it ends too soon")
            op = byte[0]
            self.opcodes += 1
            if op in pushed:
                follows, takes = pushed[op]
                if follows:
                    read(follows)
                push(1)
                self.memory += takes
            elif op in _COUNTED:
                take(op)
            elif op == 0x94:  # MEMOIZE
                self.memoized += 1
                self._remember(self.memoized - 1)
            elif op == 0x68 or op == 0x6A:  # get what was remembered
                push(memo.get(from_bytes(read(1 if op == 0x68 else 4), "little"), 1))
                self.memory += 8
            elif op == 0x71 or op == 0x72:
                self._put(from_bytes(read(1 if op == 0x71 else 4), "little"))
            elif op == 0x2E:  # STOP
                return
            else:
                rare(op)
        raise Excess(f"values that take {self.memory} bytes or more, of {self.size} bytes")

    def _take(self, op: int) -> None:
        """Text, bytes or a number, its length in front."""
        layout, follows = _COUNTED[op]
        (length,) = struct.unpack(layout, self.file.read(follows))
        if length > self.size:
            raise EOFError("it ends too soon")
        if length < 4096:
            self.file.read(length)
        else:
            self.file.seek(length, os.SEEK_CUR)
        self.stack.append(_LONG_KEY if op in _LONGS else 1)
        self.memory += 56 + length

    def _rare(self, op: int) -> None:
        """All but the opcodes of plain values and of the memo."""
        stack = self.stack
        if op == ord("("):
            self.marks.append(len(stack))
        elif op == ord("t"):
            self._tuple(self._to_mark())
        elif op in _TUPLES:
            self._tuple([stack.pop() for _ in range(_TUPLES[op])])
        elif op == ord("e"):  # extend a list
            self._to_mark()
        elif op == ord("u"):  # set items of a dictionary
            self._hash(self._to_mark()[::2])
        elif op == ord("a"):
            stack.pop()
        elif op == ord("s"):
            stack.pop()
            self._hash([stack.pop()])
        elif op == 0x90:  # add to a set
            self._hash(self._to_mark())
        elif op == 0x91:  # a frozen set
            self._hash(self._to_mark())
            self._push(1, 216)
        elif op == ord("d"):  # a dictionary
            self._hash(self._to_mark()[::2])
            self._push(1, 232)
        elif op == ord("l"):  # a list
            self._to_mark()
            self._push(1, 64)
        elif op in _REPLACED:
            del stack[-_REPLACED[op] :]
            self._push(1, 200)
        else:
            self._rarest(op)

    def _rarest(self, op: int) -> None:
        read, stack = self.file.read, self.stack
        if op in _LINES:
            length = sum(len(self._line()) for _ in range(_LINES[op]))
            self._push(_LONG_KEY if op in _LONGS else 1, 56 + length)
        elif op == ord("g"):
            self._push(self.memo.get(int(self._line()), 1), 8)
        elif op == ord("p"):
            self._put(int(self._line()))
        elif op == 0x80:
            read(1)
        elif op == 0x95:  # a frame: what is in it comes next
            read(8)
        elif op == ord("0"):
            if self.marks and self.marks[-1] == len(stack):
                self.marks.pop()
            else:
                stack.pop()
        elif op == ord("1"):
            self._to_mark()
        elif op == ord("2"):
            self._push(stack[-1], 8)
        elif op in b"oi":  # an instance, which is refused
            self._to_mark()
            if op == ord("i"):
                self._line(), self._line()
            self._push(1, 200)
        elif op != 0x98:  # a buffer that is only read
            raise ValueError(f"it has an unknown opcode {op:#x}")

    def _line(self) -> bytes:
        line = self.file.readline()
        if not line.endswith(b"\n"):
            raise EOFError("it ends within a line")
        return line

    def _push(self, values: int, memory: int) -> None:
        self.stack.append(values)
        self.memory += memory

    def _to_mark(self) -> list[int]:
        """What was pushed since the last mark, taken off."""
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        self.memory += 8 * len(values)
        return values

    def _tuple(self, values: list[int]) -> None:
        self._push(1 + sum(values), 48 + 8 * len(values))

    def _hash(self, keys: list[int]) -> None:
        self.work += sum(keys)
        if self.work > _WORK + _WORK_GROWTH * self.opcodes:
            raise Excess("keys made of tuples that hold each other, or of numbers of any length")

    def _put(self, index: int) -> None:
        """Remember what was pushed last. The memo is a table as long as its largest index."""
        self.put += 1
        if index > self.opcodes:
            raise Excess(f"a memo of {index} entries, of {self.opcodes} values")
        self._remember(index)

    def _remember(self, index: int) -> None:
        if self.put and self.memoized:
            raise Excess("a memo of two kinds")
        values = self.stack[-1]
        if values != 1:
            self.memo[index] = values
        elif index in self.memo:
            del self.memo[index]
        self.memory += 16
