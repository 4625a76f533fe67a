"""Recipes: the training configurations that come with the package, one YAML file each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import check_name
from ..reading import check_yaml, read_yaml

__all__ = ["bounded_parser", "recipe_names", "recipe_path", "recipe_settings"]

#: characters of a text that can't stand for much, if it has no alias
_SHORT = 64


def _folder() -> Path:
    return Path(__file__).with_name("recipes")


def recipe_names(network: str | None = None) -> tuple[str, ...]:
    """Names of the recipes in the package, sorted.

    Args:
        network: those alone whose module names its network by this argument, such as "backbone"; None is all.
    """
    paths = sorted(_folder().glob("*.yaml"))
    return tuple(path.stem for path in paths if network is None or network in read_yaml(path, "a recipe")["model"])


def recipe_path(name_or_path: str) -> Path:
    """The file of a recipe: a path as it is, a bare name from the package.

    A file of somebody's is read once to see that it can be, before anything is imported to use it.

    Raises:
        MissingFileError: a path that does not exist.
        DataError: a path of something else than YAML, or of more values than a recipe has.
        UnknownNameError: a name that the package doesn't have.
    """
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml") or path.parent != Path():
        read_yaml(path, "a recipe")
        return path
    name = name_or_path.replace("_", "-")  # no recipe has an underscore in its name
    return _folder() / f"{check_name('recipe', name, recipe_names())}.yaml"


@contextmanager
def bounded_parser() -> Iterator[None]:
    """Within it, jsonargparse too reads no YAML, from a file or an argument, beyond the bounds of
    :func:`structloss.reading.parse_yaml`."""
    import yaml
    from jsonargparse import get_loader, set_loader

    unbounded = get_loader("yaml")

    def load(text: str) -> Any:
        if isinstance(text, str) and (len(text) > _SHORT or "*" in text):
            check_yaml(text, "the YAML of an option or a recipe")
        return unbounded(text)

    set_loader("yaml", load, (yaml.YAMLError,))
    try:
        yield
    finally:
        set_loader("yaml", unbounded, (yaml.YAMLError,))


def recipe_settings(backbone: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments of the module and of the data module in a backbone's recipe; empty where it has none."""
    from .. import backbones  # names and paths of recipes are told without torch

    name = backbones.info(backbone).name
    if name not in recipe_names():
        return {"backbone": name}, {}
    recipe = read_yaml(recipe_path(name), "a recipe")
    return {**recipe.get("model", {}), "backbone": name}, recipe.get("data", {})
