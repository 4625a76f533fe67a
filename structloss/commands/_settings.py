"""Settings of `structloss fit`, `validate` and `test` by their names, and whether two configurations are of one run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import DataError
from ..reading import parse_yaml

__all__ = ["differing", "same_run", "settings"]

#: settings that change nothing in training
_NO_MATTER = ("model.root", "trainer.enable_progress_bar", "trainer.enable_model_summary")


def settings(config: Any) -> dict[str, Any]:
    """Name, "trainer.max_steps", -> value of a parsed configuration: jsonargparse's namespace of a subcommand."""
    return _flat(config.as_dict())


def differing(parser: Any, config: Any) -> dict[str, Any]:
    """Those settings that were given: the others are the parser's defaults."""
    defaults = settings(parser.get_defaults())
    return {name: value for name, value in settings(config).items() if value != defaults.get(name)}


def same_run(parser: Any, before: str | None, now: str) -> bool:
    """Whether a run of one configuration can go on with another.

    What an older version had no setting for counts as that setting's default.

    Args:
        parser: of the subcommand, for the defaults.
        before: YAML text of `config.yaml`, None where it was never written.
        now: of the present configuration.
    """
    try:
        old, new = (parse_yaml(text or "", "the configuration of a run") for text in (before, now))
    except DataError:
        return False
    if not isinstance(old, dict) or not isinstance(new, dict):
        return False
    defaults = settings(parser.get_defaults())
    ours, theirs = _flat(new), _flat(old)
    names = (ours.keys() | theirs.keys()) - {*_NO_MATTER}
    return all(ours.get(name, defaults.get(name)) == theirs.get(name, defaults.get(name)) for name in names)


def _flat(content: Mapping[str, Any]) -> dict[str, Any]:
    return {
        f"{section}.{name}" if name else section: value
        for section, part in content.items()
        for name, value in (part.items() if isinstance(part, dict) else [("", part)])
    }
