"""Who imports whom: the direction of dependencies, read from the sources without running them.

A room is a folder or a file directly under `structloss/`. Every import counts, those in functions and those for type
checkers alone as well: what can't be written at the top of a file without a circle is in the wrong room.
"""

import ast
import re
from collections import defaultdict
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
#: folder -> the package that it is installed as
SOURCES = {"structloss": "structloss", "kernels": "structloss.kernels"}

_BASE = {
    *("checks", "errors", "files", "progress", "reading"),
    *("samples", "shape_templates", "skeletons", "terms", "text", "units", "_lazy"),
}
#: Room -> the rooms that it may import. docs/README.md draws it.
MAY_IMPORT = {
    "text": set(),
    "errors": {"checks", "text"},  # hands on its names, see HANDED_ON
    "checks": {"errors"},
    "_lazy": set(),
    "samples": {"errors", "text"},
    "skeletons": {"errors", "text"},
    "shape_templates": {"errors", "text"},
    "terms": {"errors", "text"},
    "units": {"errors", "text"},
    "files": {"errors", "text"},
    "progress": {"errors", "text"},
    "reading": {"errors", "text"},
    "kernels": {"errors", "skeletons", "terms"},
    "ops": {*_BASE, "kernels"},
    "functional": {*_BASE, "ops"},
    "nn": {*_BASE, "ops", "functional"},
    "backbones": _BASE,
    "metrics": {*_BASE, "ops"},
    "learned": {*_BASE, "ops", "backbones"},
    "data": _BASE,
    "images": {*_BASE, "backbones", "data", "functional"},
    "refine": {*_BASE, "backbones", "data"},
    "export": {*_BASE, "backbones", "images", "refine"},
    "harness": {*_BASE, "ops", "functional", "nn", "backbones", "metrics", "learned", "data", "images", "refine"},
    "reports": {*_BASE, "metrics", "functional"},
    "commands": {
        *(
            *_BASE,
            "kernels",
            "ops",
            "functional",
            "nn",
            "backbones",
            "metrics",
            "learned",
            "data",
            "images",
            "refine",
            "export",
            "harness",
            "reports",
        ),
    },
    "cli": {*_BASE, "commands"},
}
#: (module, other): the module only hands on the other's names, when one is first asked for, as a package does with
#: those of its modules. `errors` must load without torch, and checks of tensors are asked for there.
HANDED_ON = {("structloss.errors", "structloss.checks")}
#: Package of others -> the rooms that may import it, "room.module" for one file alone.
OTHERS = {
    "lightning": {"harness", "commands", "data.module", "images.module", "images.template_module", "refine.module"},
    "jsonargparse": {"harness", "commands"},
    "matplotlib": {"reports"},
    "cv2": {"images"},
    "torchmetrics": {"metrics", "harness"},
    "safetensors": {"backbones", "learned", "harness"},
    "triton": {"kernels", "ops"},
    "onnx": {"export.onnx_file"},
    "onnxruntime": {"export.onnx_file"},
    "ray": {"harness.ray_engine"},
}


@cache
def modules():
    """Dotted name -> file of every module of the package."""
    found = {}
    for folder, package in SOURCES.items():
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            parts = path.relative_to(REPOSITORY / folder).with_suffix("").parts
            found[".".join((package, *(parts[:-1] if parts[-1] == "__init__" else parts)))] = path
    return found


def imports_of(name, source, is_package, known):
    """(line, dotted name) of what a module imports: a known module, or the package or name as it is written."""
    package = name if is_package else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            above = parts[: len(parts) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield node.lineno, inner if inner in known else base


@cache
def graph():
    """Module -> {(line, imported name)}."""
    known = modules()
    return {
        name: set(imports_of(name, path.read_text(encoding="utf-8"), path.name == "__init__.py", known))
        for name, path in known.items()
    }


def room_of(module):
    """The room of a module; "" for the package itself."""
    return module.split(".")[1] if "." in module else ""


def edges():
    """(module, line, room, imported module, its room) of every import that leaves its room within the package."""
    for name, found in sorted(graph().items()):
        for line, other in sorted(found):
            if other.split(".")[0] == "structloss" and room_of(other) != room_of(name):
                yield name, line, room_of(name), other, room_of(other)


def test_every_room_has_its_place():
    rooms = {room_of(name) for name in modules()} - {""}
    assert rooms == set(MAY_IMPORT), "a room came or went: say in MAY_IMPORT and in docs/README.md what it may import"


def test_imports_run_one_way():
    wrong = [
        f"{name}:{line} imports {other}"
        for name, line, room, other, its in edges()
        if room and its and its not in MAY_IMPORT[room]
    ]
    assert not wrong, "\n".join(wrong)


def test_the_table_itself_has_no_circle():
    """Rooms can be put in a row in which each imports only rooms before it."""
    handed = {(room_of(a), room_of(b)) for a, b in HANDED_ON}
    left = {room: {other for other in others if (room, other) not in handed} for room, others in MAY_IMPORT.items()}
    while left:
        free = [room for room, others in left.items() if not others & set(left)]
        assert free, f"a circle among {sorted(left)}"
        for room in free:
            del left[room]


def test_the_package_itself_is_imported_for_rooms_and_the_version_only():
    """`from .. import skeletons` imports a room; a function that `structloss` hands on is imported from where it is."""
    assert not [other for _, _, room, other, its in edges() if not room and its in ("cli", "commands")]
    for name, path in modules().items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and not node.module and package.count(".") == node.level - 1:
                names = {alias.name for alias in node.names}
                assert names <= {"__version__", *MAY_IMPORT}, f"{name}:{node.lineno} imports {names}"


def circles(links):
    """Groups of nodes that reach each other: strongly connected components of more than one (Tarjan's algorithm)."""
    number, low, stack, found = {}, {}, [], []

    def visit(node):
        number[node] = low[node] = len(number)
        stack.append(node)
        for other in links.get(node, ()):
            if other not in number:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], number[other])
        if low[node] == number[node]:
            at = stack.index(node)
            group = stack[at:]
            del stack[at:]
            if len(group) > 1 or node in links.get(node, ()):
                found.append(sorted(group))

    for node in links:
        if node not in number:
            visit(node)
    return found


def test_no_circle_between_modules():
    known = modules()
    links = {
        name: {other for _, other in found if other in known and other != name and (name, other) not in HANDED_ON}
        for name, found in graph().items()
    }
    assert circles(links) == []


@pytest.mark.parametrize("library", OTHERS)
def test_who_may_import_other_packages(library):
    allowed = OTHERS[library]
    wrong = [
        f"{name}:{line} imports {other}"
        for name, found in graph().items()
        for line, other in sorted(found)
        if other.split(".")[0] == library and not {room_of(name), name.removeprefix("structloss.")} & allowed
    ]
    assert not wrong, "\n".join(wrong)


def test_the_picture_shows_what_is_imported():
    """docs/README.md draws the rooms: every arrow is an import, and every import goes along arrows."""
    text = (REPOSITORY / "docs" / "README.md").read_text(encoding="utf-8")
    picture = re.search(r"```mermaid\n(.*?)```", text, re.DOTALL)[1]
    drawn = set()
    for line in picture.splitlines():
        drawn |= set(pairwise(re.findall(r"\w+", line))) if "-->" in line else set()
    found = defaultdict(list)
    for name, _, room, other, its in edges():
        if room and its and room not in _BASE and its not in _BASE:
            found[room, its].append(f"{name} imports {other}")
    assert drawn <= set(found), f"nothing is imported along {drawn - set(found)}"
    reached = set(drawn)
    while more := {(a, d) for a, b in reached for c, d in drawn if b == c} - reached:
        reached |= more
    missing = {pair: found[pair] for pair in set(found) - reached}
    assert not missing, f"the picture lacks {missing}"


def test_the_reader_of_imports_sees_them_all():
    """A source made for it: inside functions, for type checkers, relative and absolute."""
    source = (
        "import torch\nfrom . import b\nfrom ..other import name\nfrom ..other.c import x\n"
        "if TYPE_CHECKING:\n    from structloss.other.c import T\n"
        "def f():\n    from .b import late\n    import structloss.other.c\n"
    )
    known = {"structloss.room.a", "structloss.room.b", "structloss.other", "structloss.other.c"}
    found = sorted(imports_of("structloss.room.a", source, False, known))
    assert found == [
        (1, "torch"),
        (2, "structloss.room.b"),
        (3, "structloss.other"),
        (4, "structloss.other.c"),
        (6, "structloss.other.c"),
        (8, "structloss.room.b"),
        (9, "structloss.other.c"),
    ]
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
