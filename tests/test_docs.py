"""What README and docs promise exists: their commands parse, its Python runs, its picture is there."""

import dataclasses
import re
import shlex
import typing
from collections import Counter
from pathlib import Path

import click
import pytest
from geop2p_cli.main import main

import geop2p
from geop2p.config.hints import Exactly, alternatives
from geop2p.training.recipes import RECIPES, Recipe

RESULTS = {
    "tile": geop2p.TileResult,
    "train": geop2p.TrainResult,
    "train --find-lr": geop2p.RateTest,
    "predict": geop2p.PredictResult,
    "export": geop2p.ExportResult,
}
ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands() -> list[str]:
    found = [line for page in PAGES for line in re.findall(r"^ {4,}(geop2p .+)$", page.read_text(), flags=re.MULTILINE)]
    for name, command in main.commands.items():
        examples = re.findall(rf"^ *(geop2p {name} .+)$", command.help or "", flags=re.MULTILINE)
        assert examples, f"{name} has no example"
        found += examples
    return found


@pytest.mark.parametrize("line", commands())
def test_every_command_shown_parses(line: str) -> None:
    _, name, *arguments = shlex.split(line)
    command = main.commands[name]
    context = command.make_context(name, arguments, resilient_parsing=False)
    assert isinstance(context, click.Context)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_named_exist(page: Path) -> None:
    known = {option for command in main.commands.values() for entry in command.params for option in entry.opts}
    known |= {"--help", "--nproc-per-node", "--nthreads"}  # the second is torchrun's, the third Dask's
    for script in (ROOT / "benchmarks").glob("*.py"):
        known |= set(re.findall(r'(?<=["/])--[a-z-]+(?=["/])', script.read_text()))
    assert set(re.findall(r"--[a-z][a-z-]+", page.read_text())) <= known


def test_the_python_of_the_readme_runs(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = re.findall(r"```python\n(.+?)```", README, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("landcover.tif").symlink_to(pair[0])
    Path("landcover.tif.aux.xml").symlink_to(f"{pair[0]}.aux.xml")
    Path("image.tif").write_bytes(pair[1].read_bytes())
    small = code.replace("size=128, stride=64", "size=64").replace(
        "epochs=50, batch_size=4, width=32", "steps=2, width=4"
    )
    assert small != code
    exec(small, {})
    assert Path("prediction.tif").is_file() and Path("report.html").is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_files_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert "://" in target or (page.parent / target).exists(), target


def anchors(page: Path) -> set[str]:
    """Names that GitHub gives the headings of a page; a name that comes again gets a number."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    found, often = set[str](), Counter[str]()
    for heading in re.findall(r"^#{1,6} +(.+?) *$", text, flags=re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found.add(f"{slug}-{often[slug]}" if often[slug] else slug)
        often[slug] += 1
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_anchors_of_links_exist(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", page.read_text()):
        if "://" not in target:
            assert anchor in anchors(page.parent / target if target else page), f"{target}#{anchor}"


def test_everything_exported_is_there() -> None:
    for name in geop2p.__all__:
        assert getattr(geop2p, name) is not None


def test_all_that_can_be_set_of_a_recipe_is_told_with_its_values() -> None:
    page = (ROOT / "docs" / "train.md").read_text()
    (table,) = re.findall(r"## The fields of a recipe\n.*?(\| key .*?)\n\n", page, flags=re.DOTALL)
    rows = {cells[1]: cells for line in table.splitlines()[2:] if (cells := line.split("|"))}
    told = {key: cells for first, cells in rows.items() for key in re.findall(r"`(\w+)`", first)}
    assert set(told) == {field.name for field in dataclasses.fields(Recipe)}
    hints = typing.get_type_hints(Recipe)
    for key, (_, keys, values, _, recipes, _) in told.items():
        for choice in alternatives(hints[key]):
            if isinstance(choice, Exactly) and "norm" not in key:
                assert re.search(rf"\b{choice.value}\b", values), (key, choice)
        if keys.count("`") == 2:
            found = [str(getattr(recipe, key)).lower() for recipe in RECIPES.values()]
            shown = [word.strip("` ") for word in recipes.split(",")]
            assert len(shown) in (1, 2, 3), key
            if key not in ("betas", "jitter"):
                wanted = found if len(shown) == 3 else found[:1] * 3
                assert [entry.removesuffix(".0") for entry in found] == [entry.removesuffix(".0") for entry in wanted]
                assert shown == [entry.removesuffix(".0") for entry in wanted[: len(shown)]], key


def test_what_programs_rely_on_is_told() -> None:
    page = (ROOT / "docs" / "programs.md").read_text()
    for command, result in RESULTS.items():
        (line,) = re.findall(rf"^\| `geop2p {command}` \|(.*)\|$", page, flags=re.MULTILINE)
        told = re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", line))
        assert told == [field.name for field in dataclasses.fields(result)]
    code = "".join(file.read_text() for file in (ROOT / "geop2p").rglob("*.py"))
    used = set(re.findall(r"\bGEOP2P_[A-Z][A-Z0-9_]+", code))
    assert len(used) > 15 and used <= set(re.findall(r"GEOP2P_\w+", page))
