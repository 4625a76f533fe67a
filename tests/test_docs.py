"""What the documentation says is so: its Python runs, its commands exist, its tables have the code's defaults."""

import ast
import importlib
import inspect
import re
import shlex
import sys
import textwrap
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

import structloss
from structloss import backbones
from structloss.cli import main

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "bench" / "results").glob("NOTES.md")]
)
GUIDES = [page for page in PAGES if not page.startswith("bench/")]
#: pages whose Python is the contents of files to write
RECIPES = ["docs/adding.md"]
FIT = ("fit", "validate", "test")
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def text_of(page):
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page, *languages):
    return [body for language, body in FENCE.findall(text_of(page)) if language.strip() in languages]


# ------------------------------------------------------------------------------------------------------------ Python
@pytest.mark.parametrize("page", [page for page in GUIDES if blocks(page, "python") and page not in RECIPES])
def test_python_runs(page, tmp_path, monkeypatch):
    """The blocks of a page, one after the other in one namespace, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "docs"}
    for number, body in enumerate(blocks(page, "python"), start=1):
        exec(compile(body, f"{page}, block {number}", "exec"), names)


def test_recipes_are_python():
    """Their blocks are files and pieces of files; other tests carry them out."""
    for page in RECIPES:
        for body in blocks(page, "python"):
            ast.parse(textwrap.dedent(body))


# ----------------------------------------------------------------------------------------------------------- commands
def commands_of(page):
    """The `structloss ...` lines of a page's blocks without a language, comments cut off, continued lines joined."""
    lines = "\n".join(blocks(page, "", "sh", "console")).replace("\\\n", " ").splitlines()
    found = [line.strip().removeprefix("$ ") for line in lines]
    return [shlex.split(line, comments=True) for line in found if re.match(r"(\S+=\S+ )?structloss ", line)]


@cache
def flags_of(*command):
    """The flags that a command's own help names."""
    import contextlib
    import io

    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as stopped:
        main([*command, "--help"])
    assert stopped.value.code == 0, f"there is no command {' '.join(command)}"
    return set(re.findall(r"--[\w-]+", out.getvalue()))


def keys_of(section, recipe):
    """The names that `--SECTION.name` may have with a recipe."""
    if section == "trainer":
        lightning = pytest.importorskip("lightning")
        return set(inspect.signature(lightning.Trainer.__init__).parameters)
    from structloss.harness.recipe_files import recipe_names, recipe_path
    from structloss.harness.restart import Restart
    from structloss.harness.systems import system_of
    from structloss.reading import read_yaml

    # a recipe that the page makes up, or a file of the reader's, is of a lifting network
    settings = read_yaml(recipe_path(recipe), "a recipe") if recipe in recipe_names() else {}
    module, data = system_of(settings.get("model")).classes()
    return set(inspect.signature({"data": data, "model": module, "restart": Restart}[section].__init__).parameters)


def check_fit(words):
    from structloss.harness.learned_training import LearnedSettings
    from structloss.harness.recipe_files import recipe_names
    from structloss.learned import LearnedLoss

    own = {"--config", "--ckpt_path", "--init-from", "--loss", "--fresh", "--logger", "--seed_everything"}
    own |= {"--hypotheses", "--iterations"}
    recipe = words[words.index("--config") + 1] if "--config" in words else ""
    for flag, value in zip(words, [*words[1:], ""], strict=True):
        if not flag.startswith("--"):
            continue
        name, _, rest = flag.partition("=")
        section, _, key = name[2:].partition(".")
        if not key:
            assert name in own, f"{name} is no flag of fit"
        elif key.startswith("learned."):
            known = {*LearnedSettings.__dataclass_fields__, *inspect.signature(LearnedLoss.__init__).parameters}
            assert section == "model" and key.removeprefix("learned.") in known, f"{name} sets nothing"
        else:
            assert section in ("trainer", "model", "data", "restart"), f"{name} sets nothing"
            assert key.partition(".")[0] in keys_of(section, recipe), f"{name} sets nothing"
        if name == "--config" and not (rest or value).endswith((".yaml", "RECIPE", "NAME")):
            assert (rest or value) in recipe_names(), f"there is no recipe {rest or value}"


ACTIONS = ("inspect", "convert", "frames", "synthetic", "formats", "info", "list", "export")
BENCHMARKS = ("step", "backbones", "images", "loader", "lossnet", "overhead", "refine")


@pytest.mark.parametrize("page", [page for page in PAGES if commands_of(page)])
def test_commands_exist(page):
    for words in commands_of(page):
        words = words[words.index("structloss") + 1 :]
        if words[0] in FIT:
            check_fit(words[1:])
            continue
        command = [words[0]]
        if words[1:2] and words[1] in ACTIONS:
            command.append(words[1])
        if (words[0] == "bench" and words[1:2] and words[1] in BENCHMARKS) or words[0] == "plot":
            command += words[1:2]
        if words[0].startswith("-"):
            command, words = [], [*words]
        known = flags_of(*command)
        for flag in (word.partition("=")[0] for word in words if word.startswith("--")):
            assert flag in known, f"structloss {' '.join(command)} has no flag {flag}"
        for flag, value in pairwise(words):
            if flag in ("--backbone", "--model") and value != "NAME":
                backbones.info(value)


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_exist(page):
    known = re.findall(r"^([\w-]+):", text_of("Makefile"), re.MULTILINE)
    for target in re.findall(r"(?:^|`)make ([a-z-]+)", text_of(page), re.MULTILINE):
        assert target in known, f"there is no make {target}"


# -------------------------------------------------------------------------------------------------------------- links
def anchors(page):
    """The anchors that GitHub gives to the headings of a page."""
    titles = re.findall(r"^#+ (.*)$", FENCE.sub("", text_of(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", text_of(page))):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = ((ROOT / page).parent / name).resolve() if name else ROOT / page
        assert path.exists(), f"{target} is not there"
        if anchor:
            assert anchor in anchors(str(path.relative_to(ROOT))), f"{target} has no such heading"


# ------------------------------------------------------------------------------------------------------------- tables
def tables():
    """(page, dotted name, rows) of every table that `<!-- options of NAME -->` announces."""
    for page in GUIDES:
        for name, table in re.findall(r"<!-- options of ([\w.]+) -->\n((?:\|.*\n)+)", text_of(page)):
            rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table.splitlines()]
            yield page, name, rows[2:]


def resolved(name):
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


#: Parameters that a page explains in its text, or once for all.
COMMON = {"self", "pred", "target", "weights", "net", "model", "name", "keypoints", "path", "loss"}
SHARED = {"skeleton", "weight", "reduction", "check_finite", "backend"}


@pytest.mark.parametrize("page, name, rows", list(tables()), ids=lambda x: x if isinstance(x, str) else "")
def test_options_and_defaults(page, name, rows):
    """A table lists every option with its default."""
    thing = resolved(name)
    found = dict(inspect.signature(thing).parameters)
    listed = {}
    for first, default, *_ in rows:
        listed[first.strip("`")] = ast.literal_eval(default.strip("`"))
    expected = {}
    for key, parameter in found.items():
        default = parameter.default
        if default is inspect.Parameter.empty and key not in COMMON:
            default = {}  # of a dataclass's factory
        expected[key] = {} if "factory" in repr(default).lower() else default
    for key, default in listed.items():
        assert key in found, f"{name} has no {key}"
        assert default == expected[key], f"{name}: {key} is {expected[key]!r} by default"
    left_out = set(found) - set(listed) - (COMMON - set(listed))
    if name.startswith("structloss.") and name.count(".") == 1 and name != "structloss.objective":
        left_out -= SHARED  # options of a term
    assert not left_out, f"{page} says nothing of {sorted(left_out)}"


# What is listed is so. A page need not list everything, or each new thing would have to be added to it as well: what
# there is, `structloss backbones`, `structloss data formats` and `structloss.TERMS` tell.
def rows(page, title):
    """The rows of the tables in a section of a page, as lists of cells without quotes."""
    section = re.split(r"^## ", text_of(page).partition(f"\n## {title}\n")[2], flags=re.MULTILINE)[0]
    lines = re.findall(r"^\|(.*)\|$", section, re.MULTILINE)
    found = [[cell.strip() for cell in line.split("|")] for line in lines]
    assert found, f"{page} has no table under {title}"
    return [[cell.strip("`") for cell in row] for row in found if row[0].startswith("`")]


def test_the_tables_of_terms():
    listed = [*rows("docs/depth_ranking.md", "The objective"), *rows("docs/anatomy.md", "The terms")]
    listed = [row for row in listed if row[0] in structloss.TERMS]
    assert len(listed) >= 14
    for name, *cells in listed:
        term = structloss.TERMS[name]
        needs = cells[0] if cells[0] in ("yes", "no") else cells[-1]
        assert needs == ("yes" if term.needs_target else "no"), name
    for name, term in structloss.TERMS.items():
        if name in [row[0] for row in listed]:
            for option in term.options:
                assert f"`{option}`" in text_of("docs/depth_ranking.md") + text_of("docs/anatomy.md"), option


@pytest.mark.parametrize("title", ["Position and motion", "Structure", "Joints in images"])
def test_the_tables_of_metrics(title):
    from structloss import metrics

    for function, kind, *_ in rows("docs/metrics.md", title):
        assert inspect.isfunction(getattr(metrics, function)) and inspect.isclass(getattr(metrics, kind))


def test_the_table_of_measures():
    from structloss.metrics.measures import MEASURES

    for name, title, unit, text in rows("docs/metrics.md", "Measures"):
        row = MEASURES[name.removesuffix("/PART")]
        assert (title, unit, text.partition(":")[0]) == (row.title, row.unit, row.group), name
        assert bool(row.parts) == name.endswith("/PART")


def test_the_tables_of_formats_and_protocols():
    from structloss.data.formats.registry import FORMATS
    from structloss.data.protocols import PROTOCOLS

    formats = rows("docs/data.md", "Formats")
    assert len(formats) >= 10
    for name, _, becomes in formats:
        assert becomes == ("clips" if FORMATS[name].clips else "store"), name
    for name, *_ in rows("docs/data.md", "Protocols"):
        assert name in PROTOCOLS


def test_the_loss_networks_and_corruptions():
    from structloss.learned import CORRUPTIONS, VARIANTS

    for names, *_ in rows("docs/learned_loss.md", "Loss networks"):
        assert all(name.strip("` ") in VARIANTS for name in names.split(","))
    listed = re.search(r"^Corruptions: (.*?)\. ", text_of("docs/learned_loss.md"), re.MULTILINE | re.DOTALL)[1]
    assert set(re.findall(r"`(\w+)`", listed)) <= set(CORRUPTIONS)


def test_the_table_of_families():
    """Family, flagship, kinds and channels, as the registry has them."""
    families = {}
    for name in backbones.names():
        families.setdefault(backbones.info(name).family, []).append(backbones.info(name))
    listed = [row for row in rows("docs/backbones.md", "Families") if row[0] in families]
    assert len(listed) >= 16
    for family, flagship, kinds, channels, *_ in listed:
        assert backbones.info(family).name == flagship
        assert set(kinds.split("; ")) == {entry.kind for entry in families[family]}
        assert channels == ", ".join(backbones.info(flagship).channels)


def test_the_recipe_of_a_command(tmp_path, monkeypatch, capsys):
    """The command of docs/adding.md, in a folder beside the package's, and its test: nothing else is touched."""
    section = re.split(r"^## ", text_of("docs/adding.md").partition("## A command\n")[2], flags=re.MULTILINE)[0]
    source, test = re.findall(r"^```python\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    name, other = re.findall(r"^\*\*\d\. `([^`]+)`\*\*", section, re.MULTILINE)
    assert f"Files touched, and no others: `{name}`, `{other}`." in section
    module = Path(name).stem
    (tmp_path / Path(name).name).write_text(source, encoding="utf-8")
    package = importlib.import_module("structloss.commands")
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    names = {}
    exec(compile(test, other, "exec"), names)
    try:
        names[f"test_{module}"](tmp_path, capsys)
        with pytest.raises(SystemExit):
            main(["--help"])
        assert re.search(rf"^    {module} +\S", capsys.readouterr().out, re.MULTILINE)
    finally:
        sys.modules.pop(f"structloss.commands.{module}", None)
        if hasattr(package, module):
            delattr(package, module)


def test_the_glossary():
    """Thirty words in the order of the alphabet, each with its meaning."""
    rows = re.findall(r"^\| \*\*([^*]+)\*\* \| ([^|]+) \|([^|]*)\|$", text_of("docs/glossary.md"), re.MULTILINE)
    words = [row[0] for row in rows]
    assert len(words) == 30 and words == sorted(words, key=str.lower)
    assert all(meaning.strip() for _, meaning, _ in rows)


def test_the_readme_is_short():
    assert len(text_of("README.md").splitlines()) < 150


def test_the_index_names_every_page_and_example():
    index = text_of("docs/README.md")
    for path in [*(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*.py")]:
        assert path.name == "README.md" or f"{path.name})" in index, path.name


def test_the_citation_and_the_changelog():
    import yaml

    cited = yaml.safe_load(text_of("CITATION.cff"))
    assert cited["cff-version"] == "1.2.0" and cited["title"] == "structloss" and cited["message"]
    assert cited["authors"] == [{"name": "The structloss developers"}]
    assert cited["version"] == structloss.__version__
    titles = re.findall(r"^## \[(.+?)\]", text_of("CHANGELOG.md"), re.MULTILINE)
    assert structloss.__version__ in titles


def test_the_reader_of_commands_finds_what_is_wrong():
    with pytest.raises(AssertionError, match="sets nothing"):
        check_fit(["--config", "repose-tiny", "--data.windw", "9"])
    with pytest.raises(AssertionError, match="no recipe"):
        check_fit(["--config", "repose-tyny"])
    with pytest.raises(AssertionError, match="no flag"):
        check_fit(["--frsh"])
    assert "--steps" in flags_of("demo") and "--stepps" not in flags_of("demo")
