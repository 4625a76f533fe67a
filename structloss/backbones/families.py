"""A registry of networks by family: a family's module declares its variants, which are looked up by name.

Backbones have one (`structloss.backbones`), networks that start from pixels another (`structloss.images`). They differ
in what is told about a variant, and in the package whose modules declare the families.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Generic, Protocol, TypeVar, cast

from torch import nn

from ..errors import ArgumentError, check_name

__all__ = ["Families", "VariantInfo"]


class VariantInfo(Protocol):
    """What every registry tells about a variant at least."""

    @property
    def name(self) -> str: ...

    @property
    def arguments(self) -> Mapping[str, Any]: ...


Info = TypeVar("Info", bound=VariantInfo)
Network = TypeVar("Network", bound=nn.Module)
Builder = TypeVar("Builder", bound=Callable[..., nn.Module])


class Families(Generic[Info, Network]):
    """Variants of networks and the families that they are of.

    Args:
        kind: what one of them is called in messages, such as "backbone".
        info: makes what is told about a variant: a frozen dataclass with `name`, `family` and `arguments`.
        package: every module of this package is imported when a name is first looked up; their :meth:`family`
            decorators register what they serve.
        usual: (variant's name, its arguments) -> further fields of `info` where a family doesn't say them.

    Attributes:
        variants: name -> what is told about it, and what builds it.
        flagships: family name -> the variant that it stands for, where a variant hasn't this name itself.
    """

    def __init__(
        self,
        kind: str,
        info: Callable[..., Info],
        package: str,
        usual: Callable[[str, Mapping[str, Any]], Mapping[str, Any]] = lambda name, arguments: {},
    ) -> None:
        self.kind = kind
        self.variants: dict[str, tuple[Info, Callable[..., Network]]] = {}
        self.flagships: dict[str, str] = {}
        self._info = info
        self._package = package
        self._usual = usual
        self._complete = False

    def family(
        self, name: str, variants: Mapping[str, Mapping[str, Any]], *, flagship: str, **common: Any
    ) -> Callable[[Builder], Builder]:
        """Decorator: register the class or function it decorates as the builder of a family.

        Args:
            name: family name.
            variants: suffix -> fields of the info. The variant's name is `<name>-<suffix>`, or the family's where the
                suffix is empty.
            flagship: the suffix that the bare family name stands for.
            **common: fields that all variants share.
        """

        def register(builder: Builder) -> Builder:
            for suffix, own in variants.items():
                said = {**common, **own}
                full = _full_name(name, suffix)
                frozen = {key: MappingProxyType(dict(said.get(key, {}))) for key in ("published", "arguments")}
                usual = {"name": full, "family": name, **self._usual(full, frozen["arguments"])}
                entry = self._info(**{**usual, **said, **frozen})
                self.variants[entry.name] = (entry, cast("Callable[..., Network]", builder))
            if flagship:
                self.flagships[name] = _full_name(name, flagship)
            return builder

        return register

    def search(self) -> None:
        """Import the modules that declare families, again if they were before: there may be more of them."""
        package = importlib.import_module(self._package)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self._package}.{module.name}")
        self._complete = True

    def names(self) -> tuple[str, ...]:
        """Names of all variants, sorted."""
        return tuple(sorted(self._all()))

    def entry(self, name: str) -> tuple[Info, Callable[..., Network]]:
        """What is told about a variant, or about the flagship of a family, and what builds it.

        Raises:
            UnknownNameError: the name is not registered.
        """
        check_name(self.kind, name, [*self._all(), *self.flagships])
        return self.variants[self.flagships.get(name, name)]

    def _all(self) -> Mapping[str, object]:
        if not self._complete:
            self.search()
        return self.variants

    def build(self, name: str, overrides: Mapping[str, Any]) -> Network:
        """Build a network with fresh weights.

        Args:
            name: a variant, or a family, its flagship.
            overrides: constructor arguments to use instead of the variant's.

        Raises:
            UnknownNameError: the name is not registered.
            ArgumentError: an override that the family doesn't have, or that has an impossible value.
        """
        entry, builder = self.entry(name)
        accepted = _accepted(builder)
        for override in overrides:
            if override not in accepted:
                raise ArgumentError(
                    f"{override} is not an override of {entry.name}, expected one of {', '.join(accepted)}."
                )
        return builder(**{**entry.arguments, **overrides})


def _full_name(family: str, suffix: str) -> str:
    return f"{family}-{suffix}" if suffix else family


def _accepted(builder: Callable[..., nn.Module]) -> list[str]:
    """Arguments of a constructor and, where it hands `**` ones on, those of its base class that are keywords only."""
    found: dict[str, None] = {}
    kinds = [inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY]
    makers = [vars(base).get("__init__") for base in inspect.getmro(builder)] if inspect.isclass(builder) else [builder]
    for make in filter(None, makers):
        parameters = inspect.signature(make).parameters.values()
        found |= dict.fromkeys(p.name for p in parameters if p.kind in kinds and p.name != "self")
        kinds = [inspect.Parameter.KEYWORD_ONLY]
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return list(found)
