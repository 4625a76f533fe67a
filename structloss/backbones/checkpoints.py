"""Checkpoints: published weights in without executing code, safetensors out.

Published files are pickles. They are read by PyTorch's restricted unpickler, which builds tensors and plain containers
only; the NumPy objects that training scripts leave in them (random states, scalar losses) become :class:`_Inert`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ..errors import ArgumentError, CheckpointError, MissingFileError, shown
from ..files import write_bytes
from ..reading import compressed_member, not_regular
from .official import from_official, official_keys, to_official

__all__ = ["LoadReport", "MisfitError", "load_published", "read_checkpoint", "save_checkpoint"]


class _Inert:
    """Stands for a NumPy object of a pickle: takes any arguments and state, keeps and runs nothing."""

    def __new__(cls, *args: object) -> _Inert:
        return object.__new__(cls)

    def __setstate__(self, state: object) -> None:
        pass


# No name of this list resolves to NumPy while a file is read: all of them make an _Inert.
_NUMPY_GLOBALS = (
    "numpy.ndarray",
    "numpy.dtype",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    "numpy.random.RandomState",
    "numpy.random.mtrand.RandomState",
    "numpy.random.__RandomState_ctor",
    "numpy.random._pickle.__randomstate_ctor",
    "numpy.random._pickle.__bit_generator_ctor",
    "numpy.random._pickle.__generator_ctor",
    *(f"numpy.random.bit_generator.{name}" for name in ("SeedSequence", "__pyx_unpickle_SeedSequence")),
    "numpy.random._mt19937.MT19937",
    "numpy.random._pcg64.PCG64",
    "numpy.random._pcg64.PCG64DXSM",
    "numpy.random._philox.Philox",
    "numpy.random._sfc64.SFC64",
)

# VideoPose3D, MotionBERT and their relatives; Lightning, SimpleBaseline, SemGCN; MotionAGFormer; VideoPose3D's
# trajectory network; Jointformer's first stage, beside the second; loss-nets of SEAL-pose
_CONTAINERS = ("model_pos", "state_dict", "model", "model_traj", "jt_state_dict", "model_loss", "loss_net")
# DataParallel; Lightning, twice; torch.compile; the trajectory network of our semi-supervised runs
_PREFIXES = ("module.", "model.", "backbone.", "_orig_mod.", "trajectory.")


class MisfitError(CheckpointError):
    """A checkpoint of another model.

    Attributes:
        report: what of it fits, and what does not; None where it is not known.
    """

    def __init__(self, message: str, report: LoadReport | None = None) -> None:
        super().__init__(message)
        self.report = report


@dataclass(frozen=True)
class LoadReport:
    """What :func:`load_published` found.

    Attributes:
        source: the file, or `"state_dict"`.
        loaded: number of tensors copied into the model.
        missing: keys of the model that the checkpoint lacks.
        unexpected: keys of the checkpoint that the model lacks.
        mismatched: (key, shape found, shape expected) of tensors that don't fit.
        miscast: (key, dtype found, dtype expected) of tensors of the right shape that are whole numbers where the model
            has floating-point ones, or the other way.
        prefix: what was stripped from the checkpoint's keys, such as `"module."`.
        ignored: number of entries without that prefix, which belong to something else (a Lightning module's losses, a
            network beside this one).
    """

    source: str
    loaded: int
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...] = ()
    prefix: str = ""
    ignored: int = 0
    miscast: tuple[tuple[str, torch.dtype, torch.dtype], ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every key matched."""
        return not (self.missing or self.unexpected or self.mismatched or self.miscast)

    def __str__(self) -> str:
        lines = [f"loaded {self.loaded} tensors from {self.source}"]
        if self.prefix:
            lines[0] += f" (keys under {self.prefix!r})"
        for title, entries in (
            ("missing from the checkpoint", self.missing),
            ("not in the model", self.unexpected),
            (
                "of another shape",
                [f"{key} {list(found)}, expected {list(want)}" for key, found, want in self.mismatched],
            ),
            ("of another dtype", [f"{key} {found}, expected {want}" for key, found, want in self.miscast]),
        ):
            if entries:
                more = f", and {len(entries) - 5} more" if len(entries) > 5 else ""
                lines.append(f"{len(entries)} {title}: {', '.join(entries[:5])}{more}")
        if self.ignored:
            where = f"outside {self.prefix!r}" if self.prefix else "of other networks"
            lines.append(f"{self.ignored} entries {where} ignored")
        return "\n".join(lines)


def load_published(
    model: nn.Module, state_dict_or_path: Mapping[str, Any] | str | os.PathLike[str], *, strict: bool = True
) -> LoadReport:
    """Copy published weights into `model`, all of them or none.

    Takes the published keys, or those that :func:`save_checkpoint` writes, bare or under `module.` (DataParallel),
    `model.` or `backbone.` (Lightning) and `_orig_mod.` (torch.compile), in the dictionary itself or in its
    `model_pos`, `state_dict` or `model`. Files are safetensors (by the suffix) or anything that `torch.load` reads; a
    pickle never gets to execute code.

    Args:
        model: a backbone of this package, which knows its published keys, or a module whose own keys are published. A
            model of several networks, `official_entries`, takes files with an entry for each of them too.
        state_dict_or_path: a file, or the dictionary already loaded.
        strict: refuse a checkpoint with missing, unexpected or misshapen entries. Otherwise what fits is copied, which
            must be at least one tensor.

    Returns:
        A report of what was loaded and what was not. `str()` of it is readable.

    Raises:
        MissingFileError: there is no such file.
        CheckpointError: the file is unreadable or wants to run code, or belongs to another model. The model is then as
            it was before.
    """
    source, content = "state_dict", cast(object, state_dict_or_path)
    if not isinstance(state_dict_or_path, Mapping):
        path = Path(state_dict_or_path)
        source, content = str(path), read_checkpoint(path)
    content, elsewhere = _joined(model, content)
    # A file holds the published names, or ours if this library has written it.
    readings = [(names, _best_view(content, names, source)) for names in (to_official(model), model.state_dict())]
    expected, (prefix, found, ignored) = max(readings, key=lambda reading: _matches(*reading))
    published = expected is readings[0][0]
    if published:
        found = official_keys(model, found)

    fitting, mismatched, miscast = {}, [], []
    for key, value in found.items():
        want = expected.get(key)
        if want is None:
            continue
        if value.shape != want.shape:
            mismatched.append((key, tuple(value.shape), tuple(want.shape)))
        elif value.is_floating_point() != want.is_floating_point():
            miscast.append((key, value.dtype, want.dtype))
        else:
            fitting[key] = value
    # Files older than PyTorch 0.4.1 have no such counter, and nothing at inference reads it.
    missing = [key for key in expected if key not in found and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in found if key not in expected]
    report = LoadReport(
        source,
        len(fitting),
        tuple(missing),
        tuple(unexpected),
        tuple(mismatched),
        prefix=prefix,
        ignored=ignored + elsewhere,
        miscast=tuple(miscast),
    )
    if not fitting or (strict and not report.complete):
        raise MisfitError(_misfit(report, type(model).__name__, len(expected)), report)
    model.load_state_dict(from_official(model, fitting) if published else fitting, strict=False)
    return report


def _misfit(report: LoadReport, model: str, total: int) -> str:
    if report.mismatched:
        key, found, want = report.mismatched[0]
        example = f"{key} has shape {list(found)}, expected {list(want)}"
    elif report.miscast:
        key, dtype, wanted = report.miscast[0]
        example = f"{key} has dtype {dtype}, expected {wanted}"
    else:
        parts = [f"{report.missing[0]} is missing"] if report.missing else []
        parts += [f"{report.unexpected[0]} is not in the model"] if report.unexpected else []
        example = " and ".join(parts) or "it has no weights"
    return (
        f"{report.source} is not a checkpoint of this {model}: {report.loaded} of {total} keys match, for example "
        f"{example}."
    )


def _joined(model: nn.Module, content: object) -> tuple[object, int]:
    """A checkpoint that holds the state dict of each of the model's networks in an entry of its own, as one state dict,
    and the number of tensors in other entries. Which entries says the model, `official_entries`: entry -> prefix of its
    keys in the model."""
    entries: Mapping[str, str] = getattr(model, "official_entries", {})
    if not isinstance(content, Mapping) or not any(isinstance(content.get(name), Mapping) for name in entries):
        return content, 0
    joined: dict[str, Any] = {}
    elsewhere = 0
    for name, entry in content.items():
        if not isinstance(entry, Mapping):
            continue
        tensors = {key: value for key, value in entry.items() if isinstance(key, str) and isinstance(value, Tensor)}
        if name not in entries:
            elsewhere += len(tensors)
            continue
        while tensors and (step := next((p for p in _PREFIXES if all(key.startswith(p) for key in tensors)), None)):
            tensors = {key[len(step) :]: value for key, value in tensors.items()}
        joined |= {entries[name] + key: value for key, value in tensors.items()}
    return joined, elsewhere


def _views(content: Mapping[str, Any]) -> Iterator[_View]:
    """Every reading of a checkpoint: (prefix, tensors by the rest of their keys, number of other tensors)."""
    nested = [content[name] for name in _CONTAINERS if isinstance(content.get(name), Mapping)]
    for entries in [*nested, content]:
        tensors = {key: value for key, value in entries.items() if isinstance(key, str) and isinstance(value, Tensor)}
        prefixes = {""}
        for key in tensors:
            rest = key
            while step := next((p for p in _PREFIXES if rest.startswith(p)), None):
                rest = rest[len(step) :]
                prefixes.add(key[: len(key) - len(rest)])
        for prefix in sorted(prefixes, key=len):
            under = {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
            yield prefix, under, len(tensors) - len(under)


_View = tuple[str, dict[str, Tensor], int]


def _matches(expected: Mapping[str, Tensor], view: _View) -> tuple[int, int]:
    """How many entries of the view are in the model, with the right shape and at all."""
    shaped = sum(key in expected and value.shape == expected[key].shape for key, value in view[1].items())
    return shaped, sum(key in expected for key in view[1])


def _has_tensors(value: object) -> bool:
    return isinstance(value, Mapping) and any(isinstance(entry, Tensor) for entry in value.values())


def _best_view(content: object, expected: Mapping[str, Tensor], source: str) -> _View:
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{source} holds a {type(content).__name__}, expected a dictionary of weights.")
    best = max(_views(content), key=lambda view: _matches(expected, view))
    if not best[1]:
        found = f"{source} holds no tensors"
        if unknown := [key for key, value in content.items() if _has_tensors(value)]:
            found = f"{source} holds its tensors in {shown(unknown[0])}"
        raise CheckpointError(
            f"{found}, expected a dictionary of weights, or one that holds it as {' or '.join(_CONTAINERS)}."
        )
    return best


def read_checkpoint(path: Path) -> object:
    """What a checkpoint holds, in memory, without executing code: tensors and plain containers.

    Raises:
        MissingFileError: there is no such file.
        CheckpointError: it is unreadable, or wants to run code.
    """
    if not path.exists():
        raise MissingFileError(f"{path} does not exist, expected a checkpoint file.")
    if path.is_dir():
        raise CheckpointError(f"{path} is a directory, expected a checkpoint file.")
    if not_regular(path):
        raise CheckpointError(f"{path} is not a regular file, expected a checkpoint file.")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise CheckpointError(f"{path} is not a readable safetensors file: {_first_line(error)}.") from error
    if (member := compressed_member(path)) is not None:
        raise CheckpointError(f"{path} has {member!r} in it compressed, expected a file as torch.save writes it.")
    try:
        with torch.serialization.safe_globals([(_Inert, name) for name in _NUMPY_GLOBALS]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise nearly anything
        refused = re.search(r"GLOBAL (\S+)", str(error))
        if refused:
            raise CheckpointError(
                f"{path} refers to {refused[1]}, expected tensors and plain containers only; it was not loaded, since "
                "running code from a checkpoint is unsafe: of a whole module, save the state_dict()."
            ) from None
        raise CheckpointError(f"{path} is damaged, truncated or no PyTorch file: {_first_line(error)}.") from error


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return re.split(r"\n|\. ", text)[0].rstrip(".")[:160]


def save_checkpoint(
    model: nn.Module, path: str | os.PathLike[str], metadata: Mapping[str, object] | None = None
) -> Path:
    """Write the state dict of `model` as safetensors, to a temporary name first: `path` is never half written.

    Args:
        model: any module.
        path: a name that ends in `.safetensors`, in an existing directory; an existing file is replaced.
        metadata: what to keep in the file's header; values are stored as strings.

    Returns:
        The path.

    Raises:
        ArgumentError: another suffix.
        MissingFileError: the directory does not exist.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ArgumentError(f"path is {str(path)!r}, expected a name that ends in .safetensors.")
    if not path.parent.is_dir():
        raise MissingFileError(f"{path.parent} does not exist, expected the directory to write {path.name} to.")
    # safetensors refuses tensors that share memory, so tied weights are written twice.
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in model.state_dict().items()}
    # As bytes: what writes a file itself puts another one in the place of the temporary one, which is locked.
    return write_bytes(path, save(tensors, {str(key): str(value) for key, value in (metadata or {}).items()}))
