"""The cut of `pytest --check`: every value of every parameter once, a term's cases and a family's variants as one."""

from types import SimpleNamespace

from cut import cut


def item(function, keywords=(), **params):
    name = f"{function}[{'-'.join(map(str, params.values()))}]" if params else function
    found = SimpleNamespace(nodeid=name, keywords=set(keywords))
    if params:
        found.callspec = SimpleNamespace(params=params)
    # items of pytest are compared by identity
    return type("Item", (), {**vars(found)})()


def names(items):
    return [one.nodeid for one in cut(items)]


def test_every_value_once():
    items = [item("t.py::a", n=n, kind=kind) for n in (1, 2, 3) for kind in ("x", "y")]
    kept = cut(items)
    assert {one.callspec.params["n"] for one in kept} == {1, 2, 3}
    assert {one.callspec.params["kind"] for one in kept} == {"x", "y"} and len(kept) == 3


def test_what_stands_for_the_same_code_counts_as_one():
    variants = ("mixste-27", "mixste-243", "semgcn-base")
    assert names([item("t.py::a", name=name) for name in variants]) == ["t.py::a[mixste-27]", "t.py::a[semgcn-base]"]


def test_slow_emulated_and_interpreted_ones_only_where_they_are_marked():
    items = [item(f"t.py::{kind}", [kind]) for kind in ("slow", "emulated", "interpreted", "gpu")]
    assert names([*items, item("t.py::b"), item("t.py::c", ["emulated", "check"])]) == ["t.py::b", "t.py::c"]
