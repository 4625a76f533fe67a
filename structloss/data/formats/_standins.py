"""What a data file's pickle gets in place of the functions that it asks for.

Each stand-in checks its arguments, builds one kind of value and allocates no more than the file holds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sized
from typing import Any, NoReturn

import numpy as np

from ...errors import shown

__all__ = ["ALLOWED", "Call", "Dtype", "Refused"]

#: NumPy's type codes as pickles have them: bool, integers, floats, complex, bytes, text, object.
_CODE = re.compile(r"[|<>=]?(?:b1|[iu][1248]|f(?:2|4|8|16)|c(?:8|16|32)|[SU]\d{1,9}|O8?|[?bBhHiIlLqQefdg])")

_LONGEST_KEY = 100  # values in a tuple


class Refused(Exception):
    """What a file asks for is not given; the text says what that is."""


class Call:
    """The only kind of thing that a pickle can import. It can be called, and neither changed nor looked into."""

    __slots__ = ("_function",)
    _function: Callable[..., Any]

    def __init__(self, function: Callable[..., Any]) -> None:
        object.__setattr__(self, "_function", function)

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise Refused("to change one of the allowed names")

    def __setstate__(self, state: object) -> NoReturn:
        raise Refused("to change one of the allowed names")


class Dtype:
    """A dtype that a pickle describes: a type code, then a byte order. Structured and date types are refused."""

    __slots__ = ("dtype",)

    def __init__(self, code: object, *_: object) -> None:
        code = code.decode("latin1") if isinstance(code, bytes) else code
        if not isinstance(code, str) or not _CODE.fullmatch(code):
            raise Refused(f"dtype {shown(code)}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or any(part is not None for part in state[2:5]):
            raise Refused("a dtype with fields")
        order: Any = state[1].decode("latin1") if isinstance(state[1], bytes) else state[1]
        if order not in ("<", ">", "=", "|"):
            raise Refused(f"a dtype of byte order {shown(order)}")
        self.dtype = self.dtype.newbyteorder(order)


class _Array(np.ndarray):
    """An array until its pickle has filled it; :func:`_finished` hands out plain ones."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        if self.size or not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[2], Dtype):
            raise Refused("an array with an unknown state")
        _, shape, dtype, fortran, content = state
        _check_content(content, dtype.dtype, shape)
        state = (1, shape, dtype.dtype, bool(fortran), content)
        super().__setstate__(state)  # type: ignore[arg-type]  # NumPy's stub wants its own bool


def _check_content(content: object, dtype: np.dtype, shape: object) -> None:
    """Raise unless the content is what an array of this dtype and shape holds: its size is not taken on trust."""
    if not isinstance(shape, tuple) or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise Refused(f"an array of shape {shown(shape)}")
    count = math.prod(shape)
    if dtype.hasobject:
        fits = isinstance(content, list) and len(content) == count
    else:  # Python 2's bytes come as text
        fits = isinstance(content, (bytes, bytearray, str)) and len(content) == count * dtype.itemsize
    if not fits:
        size = len(content) if isinstance(content, Sized) else 0
        held = f"{size} items" if isinstance(content, list) else f"{size} bytes" if content else "none"
        raise Refused(f"a {dtype} array of shape {shape} with {held}")


def _bytes(content: Any) -> bytes:
    return content.encode("latin1") if isinstance(content, str) else bytes(content)


def _reconstruct(kind: object, shape: object, code: object) -> np.ndarray:
    """An empty array that its state fills; the shape here is always (0,), so it allocates nothing."""
    if kind is not _NDARRAY or shape not in ((0,), [0]) or code not in (b"b", "b"):
        raise Refused("to make an array with other arguments than numpy writes")
    return np.empty(0, np.int8).view(_Array)


def _from_buffer(content: Any, dtype: object, shape: Any, order: Any, *_: object) -> np.ndarray:
    if not isinstance(dtype, Dtype) or dtype.dtype.hasobject or order not in ("C", "F") or isinstance(content, str):
        raise Refused("an array from something other than bytes")
    _check_content(content, dtype.dtype, shape)
    if not content:
        return np.empty(shape, dtype.dtype)
    return np.frombuffer(content, dtype.dtype).reshape(shape, order=order)


def _scalar(dtype: object, content: object = b"") -> object:
    if not isinstance(dtype, Dtype) or dtype.dtype.hasobject:
        raise Refused("a numpy scalar of an unknown dtype")
    _check_content(content, dtype.dtype, ())
    return np.ndarray((), dtype.dtype, _bytes(content) if content else None)[()]


def _encode(text: object, encoding: object = "latin1") -> bytes:
    """How the older protocols write bytes."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1", "iso-8859-1"):
        raise Refused("to encode something other than bytes")
    return text.encode("latin1")


def _make_bytes(*arguments: object) -> bytes:
    if not arguments:
        return b""
    if len(arguments) == 1 and isinstance(arguments[0], (bytes, bytearray)):  # not a number: bytes(10**13) is 10 TB
        return bytes(arguments[0])
    return _encode(*arguments)


def _make_set(kind: type) -> Callable[..., Any]:
    def make(items: object = ()) -> Any:
        if not isinstance(items, (list, tuple, set, frozenset)):
            raise Refused(f"a {kind.__name__} of something other than a list")
        return kind(map(_key, items))

    return make


def _make_complex(real: Any = 0.0, imaginary: Any = 0.0) -> complex:
    if not all(isinstance(part, (int, float)) for part in (real, imaginary)):
        raise Refused("a complex number that is none")
    return complex(real, imaginary)


def _make_dict(pairs: object = ()) -> dict[Any, Any]:
    if not isinstance(pairs, (list, tuple)) or not all(isinstance(p, (list, tuple)) and len(p) == 2 for p in pairs):
        raise Refused("a dictionary of something other than pairs")
    return {_key(key): value for key, value in pairs}


def _key(key: Any) -> Any:
    """A key, or an item of a set. Tuples hash all that they hold, every time; those in them may be no containers."""
    parts = key if isinstance(key, tuple) else (key,)
    if any(isinstance(part, tuple) for part in parts) or len(parts) > _LONGEST_KEY:
        raise Refused("a key of tuples")
    return key


def _not_called(*_: object) -> NoReturn:
    raise Refused("to make an array with other arguments than numpy writes")


_NDARRAY = Call(_not_called)
_BUILTINS = {
    "bytes": Call(_make_bytes),
    "bytearray": Call(lambda *arguments: bytearray(_make_bytes(*arguments))),
    "complex": Call(_make_complex),
    "set": Call(_make_set(set)),
    "frozenset": Call(_make_set(frozenset)),
}
ALLOWED = {
    **{(module, name): call for module in ("builtins", "__builtin__") for name, call in _BUILTINS.items()},
    ("_codecs", "encode"): Call(_encode),
    ("collections", "OrderedDict"): Call(_make_dict),  # dictionaries are ordered, and have no attributes to overwrite
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): Call(Dtype),
}
for _core in ("numpy.core", "numpy._core"):
    ALLOWED[f"{_core}.multiarray", "_reconstruct"] = Call(_reconstruct)
    ALLOWED[f"{_core}.multiarray", "scalar"] = Call(_scalar)
    ALLOWED[f"{_core}.numeric", "_frombuffer"] = Call(_from_buffer)
