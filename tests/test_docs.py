"""What README and docs promise exists: their commands parse, its Python runs, its picture is there."""

import re
import shlex
from pathlib import Path

import click
import pytest
from geop2p_cli.main import main

import geop2p

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
        known |= set(re.findall(r'"(--[a-z-]+)"', script.read_text()))
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


def test_everything_exported_is_there() -> None:
    for name in geop2p.__all__:
        assert getattr(geop2p, name) is not None
