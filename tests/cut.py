"""The cut through all tests that `pytest --check` runs: minutes instead of a quarter of an hour.

Of each test function the fewest cases are kept that show every value of every parameter once, where values that stand
for the same code count as one: the cases of a term, the variants of a family. Nothing marked slow runs; of what runs on
emulated kernels or in the interpreter of Triton only what is marked `check`.
"""

from collections import defaultdict

import pytest

from structloss import backbones


def _classes() -> dict[str, str]:
    """Values of parameters that stand for one another: variants of a backbone's family and kind, cases of a term."""
    from test_terms import CASES

    found = {case: f"term {name}" for case, (name, _) in CASES.items()}
    for name in backbones.names():
        facts = backbones.info(name)
        found[name] = f"family {facts.family}, {facts.kind}"
    return found


def _values(item: pytest.Item, classes: dict[str, str]) -> set[tuple[str, str]]:
    """(parameter, value) of a case, a value by its class or as it is written."""
    callspec = getattr(item, "callspec", None)
    if callspec is None:
        return set()
    texts = {name: value if isinstance(value, str) else repr(value) for name, value in callspec.params.items()}
    return {(name, classes.get(text, text)) for name, text in texts.items()}


def cut(items: list[pytest.Item]) -> list[pytest.Item]:
    """The tests of `--check`, in their order."""
    classes = _classes()
    functions = defaultdict(list)
    for item in items:
        if "check" in item.keywords or not {"slow", "emulated", "interpreted", "gpu"} & set(item.keywords):
            functions[item.nodeid.partition("[")[0]].append(item)
    kept = set()
    for cases in functions.values():
        values = {item: _values(item, classes) for item in cases}
        wanted = set().union(*values.values())
        kept.add(cases[0])
        wanted -= values[cases[0]]
        while wanted:
            best = max(cases, key=lambda item: len(values[item] & wanted))  # the first of several
            kept.add(best)
            wanted -= values[best]
    return [item for item in items if item in kept]
