"""Packages whose contents are imported when first used, and what waits until another module is imported."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec

__all__ = ["lazy", "once_imported"]


def lazy(package: str, homes: Mapping[str, Sequence[str]]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package: `homes` tells the names that each of its modules gives it."""
    home = {name: module for module, names in homes.items() for name in names}

    def get(name: str) -> Any:
        if name in home:
            value = getattr(importlib.import_module(f"{package}.{home[name]}"), name)
            setattr(sys.modules[package], name, value)  # the next access does not come here
            return value
        if name in homes:
            return importlib.import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *home, *(module for module in homes if "." not in module)})

    return get, names


def once_imported(module: str, then: Callable[[], object]) -> None:
    """Call `then` as soon as the top-level `module` has been imported: now if it is already, otherwise after that."""
    if sys.modules.get(module) is not None:
        then()
    else:
        sys.meta_path.insert(0, _Announcement(module, then))


class _Announcement:
    """A finder that finds what the others find, and says so when the module has been executed."""

    def __init__(self, module: str, then: Callable[[], object]) -> None:
        self.module, self.then = module, then
        self.searching = self.said = False

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != self.module or self.searching or self.said:
            return None
        self.searching = True  # the others may announce, too, and ask this one
        try:
            found = (finder.find_spec(name, path, target) for finder in sys.meta_path if hasattr(finder, "find_spec"))
            spec = next((spec for spec in found if spec is not None), None)
        finally:
            self.searching = False
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def announce(module: ModuleType) -> None:
                execute(module)
                if not self.said:
                    self.said = (
                        True  # a finder that has nothing more to say: removing it could disturb a thread's search
                    )
                    self.then()

            spec.loader.exec_module = announce  # type: ignore[method-assign]  # of this loader alone
        return spec
