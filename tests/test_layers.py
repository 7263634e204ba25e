"""The import table of the architecture: imports go down only."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LEVELS = [
    {"geop2p.errors"},
    {"geop2p.config"},
    {"geop2p.models", "geop2p.raster"},
    {"geop2p.translator", "geop2p.metrics", "geop2p.page", "geop2p.progress"},
    {"geop2p.tiling"},
    {"geop2p.training", "geop2p.mosaic", "geop2p.interop"},
    {"geop2p.evaluation"},
    {"geop2p_cli"},
]
LEVEL_OF = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
FORBIDDEN = {"geop2p.raster": {"torch", "click"}, "geop2p.models": {"rasterio", "geopandas", "click"}}


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[0] if parts[0] == "geop2p_cli" else ".".join(parts[:2])


def modules() -> list[tuple[str, Path]]:
    found = []
    for base in (ROOT, ROOT / "cli"):
        package = base / ("geop2p" if base == ROOT else "geop2p_cli")
        for path in package.rglob("*.py"):
            name = ".".join(path.relative_to(base).with_suffix("").parts)
            found.append((name.removesuffix(".__init__"), path))
    return found


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def test_no_name_is_that_of_a_module_and_of_a_function_beside_it() -> None:
    of_library = [(name, path) for name, path in modules() if not name.startswith("geop2p_cli")]
    names = {name for name, _ in of_library}
    for name, path in of_library:
        functions = [node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
        here = name.rpartition(".")[0]
        assert not [function for function in functions if f"{here}.{function}" in names], name


@pytest.mark.parametrize(("name", "path"), [m for m in modules() if m[0] not in ("geop2p", "geop2p.__main__")])
def test_imports_go_down_only(name: str, path: Path) -> None:
    room = room_of(name)
    for imported in imports(path):
        top = imported.split(".")[0]
        if top in ("geop2p", "geop2p_cli") and imported != "geop2p":
            other = room_of(imported)
            assert other == room or LEVEL_OF[other] < LEVEL_OF[room], f"{name} imports {imported}"
        assert top not in FORBIDDEN.get(room, set()), f"{name} imports {imported}"
        if not room.startswith("geop2p_cli"):
            assert top != "click", f"{name} imports click"


def test_every_module_has_a_level() -> None:
    rooms = {room_of(name) for name, _ in modules()} - {"geop2p", "geop2p.__main__", "geop2p.__init__"}
    assert rooms <= set(LEVEL_OF)


def test_modules_stay_small() -> None:
    long = {name: count for name, path in modules() if (count := len(path.read_text().splitlines())) > 300}
    assert not long
