"""The command line: options are the config fields, errors are one line, output goes where it belongs."""

import dataclasses
import errno
import json
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from geop2p_cli.main import AboveBars, main
from geop2p_cli.options import as_typed, in_options
from tqdm import tqdm

from geop2p import CompareConfig, EvaluateConfig, PredictConfig, TileConfig, TrainConfig
from geop2p.errors import GeoP2PError

CONFIGS = {
    "tile": TileConfig,
    "train": TrainConfig,
    "predict": PredictConfig,
    "evaluate": EvaluateConfig,
    "compare": CompareConfig,
}


def invoke(*arguments: object) -> "click.testing.Result":
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.mark.parametrize(("name", "config"), CONFIGS.items())
def test_options_are_the_fields_of_the_config(name: str, config: type) -> None:
    options = {
        parameter.name: parameter for parameter in main.commands[name].params if isinstance(parameter, click.Option)
    }
    fields = {field.name: field for field in dataclasses.fields(config)}
    own = {"tile": {"origin"}, "train": {"dry_run", "find_lr"}}
    assert set(options) == set(fields) | {"overwrite", "as_json"} | own.get(name, set())
    for field in fields.values():
        assert options[field.name].default == field.default or options[field.name].is_flag
        assert options[field.name].help == field.metadata["help"]


@pytest.mark.parametrize("name", ["tile", "train", "predict", "evaluate", "compare", "info", "models", "demo"])
def test_every_command_has_help_with_an_example(name: str) -> None:
    result = invoke(name, "--help")
    assert result.exit_code == 0 and f"geop2p {name} " in result.stdout.split("Example")[1]


def test_commands_are_told_as_they_can_be_typed_again() -> None:
    context = main.commands["compare"].make_context("compare", ["--judge", "unet", "--json", "--", "-a b", "c.html"])
    assert as_typed(context) == "geop2p compare --judge unet -- '-a b' c.html"
    context = main.commands["evaluate"].make_context("evaluate", ["run", "my chips", "r.html", "--strict"])
    assert as_typed(context) == "geop2p evaluate run 'my chips' r.html --strict"


def test_messages_name_the_options_of_the_command() -> None:
    command = main.commands["evaluate"]
    text = "in ignore_class.csv, ./ignore_class and ignore_class=1: ignore_class names 'x'; see lpips_file, max_shift"
    told = (
        "in ignore_class.csv, ./ignore_class and ignore_class=1: --ignore-class names 'x'; see --lpips-file, max_shift"
    )
    assert in_options(text, command) == told
    train = main.commands["train"]
    assert in_options("init_from a: begun anew. See best_by.", train) == "--init-from a: begun anew. See --best-by."
    assert in_options("init_from a: begun anew", main.commands["models"]) == "init_from a: begun anew"
    for alone in (
        "ignore_class: no such model", "names 'ignore_class'", "GPKG:a.gpkg:max_shift", "a.gpkg|layername=max_shift",
    ):  # fmt: skip
        assert in_options(alone, command) == alone
    keys = "expected KEY=VALUE with one of the keys adversarial, batch_size"
    assert in_options(keys, train) == keys


def test_errors_and_warnings_name_options_and_are_one_line_each(pair: tuple[Path, Path], tmp_path: Path) -> None:
    result = invoke("tile", *pair, tmp_path / "a", "--line-width", "0")
    assert result.exit_code == 1 and result.stderr == "Error: --line-width is 0.0, expected above 0\n"
    code = (
        "import logging, warnings, geop2p; from geop2p_cli.main import main\n"
        "def tile(*_, **__):\n"
        "    logging.getLogger('geop2p.tiling').warning('ignore_class 9: no such class')\n"
        "    warnings.warn('an open\\nring')\n"
        "    raise geop2p.GeoP2PError('no more')\n"
        "geop2p.tile = tile\n"
        "main(['tile', 'a', 'b', 'c'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == "--ignore-class 9: no such class\nan open ring\nError: no more\n"


def test_ctrl_c_is_one_line_and_the_exit_code_that_shells_know(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("geop2p.list_systems", interrupted, raising=False)
    result = invoke("models")
    assert (result.exit_code, result.stdout) == (130, "")
    assert result.stderr.strip() == "Interrupted"


def test_names_that_are_no_text_are_refused_at_once() -> None:
    done = subprocess.run([sys.executable, "-m", "geop2p", "info", b"b\xfcro.tif"], capture_output=True, check=False)
    assert done.returncode == 2 and b"Error: b'b\\xfcro.tif': is no UTF-8 text; rename it" in done.stderr
    assert b"Traceback" not in done.stderr


def test_what_the_system_says_of_a_file_is_one_line() -> None:
    result = invoke("info", "x" * 300)
    assert result.exit_code == 1 and re.fullmatch(r"Error: x{300}/chipset.json: File name too long\n", result.stderr)


@pytest.mark.parametrize(
    "words", [("info", ""), ("predict", "run", "", "out.tif"), ("tile", "a", "b", "c", "--aoi", "")]
)
def test_a_variable_that_is_not_set_is_not_the_working_folder(words: tuple[str, ...]) -> None:
    result = invoke(*words)
    assert result.exit_code == 2 and "one of the names or values is empty" in result.stderr


def test_bugs_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geop2p.list_systems", lambda: Path("/nowhere/at all").read_text(), raising=False)
    assert isinstance(invoke("models").exception, FileNotFoundError)


def test_a_full_disk_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "a.json")

    monkeypatch.setattr("geop2p.list_systems", full, raising=False)
    result = invoke("models")
    assert (result.exit_code, result.stderr.strip()) == (1, "Error: a.json: no space left on the device")


def test_sigterm_is_one_line_and_the_exit_code_that_batch_systems_know(monkeypatch: pytest.MonkeyPatch) -> None:
    cleaned_up = []

    def terminated(*_: object) -> dict[str, object]:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            cleaned_up.append(signal.getsignal(signal.SIGTERM))
        return {}

    monkeypatch.setattr("geop2p.list_systems", terminated, raising=False)
    result = invoke("models")
    assert (result.exit_code, result.stdout, result.stderr.strip()) == (143, "", "Terminated")
    assert cleaned_up == [signal.SIG_DFL] and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    heard = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append(True))
    try:
        assert invoke("models").exit_code == 0 and heard == [True], "a handler of somebody else was replaced"
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_command_says_the_same_line_once() -> None:
    code = (
        "import logging; from geop2p_cli.main import main\n"
        "try: main(['models'])\n"
        "except SystemExit: pass\n"
        "for name in ('a.gpkg', 'b.gpkg', 'a.gpkg'): logging.getLogger('geop2p.raster').warning('%s: odd', name)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-2:] == ["a.gpkg: odd", "b.gpkg: odd"], done.stderr


def test_help_imports_neither_torch_nor_rasterio() -> None:
    code = (
        "import sys; from geop2p_cli.main import main\n"
        "try: main(['tile', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'rasterio', 'geopandas', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'imports {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_whole_path(pair: tuple[Path, Path], tmp_path: Path) -> None:
    chips, run, mosaic, report = (tmp_path / name for name in ("chips", "run", "out.tif", "report.html"))
    tiled = invoke("tile", *pair, chips, "--size", 64, "--json")
    assert tiled.exit_code == 0, tiled.output
    keys = {"path", "scenes", "chips", "train", "val", "test", "dropped", "seconds"}
    assert set(json.loads(tiled.stdout)) == keys
    trained = invoke("train", chips, run, "--epochs", 1, "--batch-size", 8, "--width", 4, "--json")
    assert set(json.loads(trained.stdout)) == {"path", "steps", "seconds", "images_per_s", "best", "unit"}
    told = invoke("info", run)
    assert told.exit_code == 0 and "type: model\n" in told.stdout and "    scales: 2\n" in told.stdout, told.output
    predicted = invoke("predict", run, pair[0], mosaic, "--json")
    assert set(json.loads(predicted.stdout)) == {
        "path", "width", "height", "parts", "seconds", "mpx_per_s", "seam_index", "tile_mismatch",
        "tile_mismatch_percent", "mode", "norm_stats", "engine", "int8_psnr", "tile_size", "network_px_per_px",
        "confidence", "uncertainty",
        "peak_rss_mb",
    }  # fmt: skip
    refused = invoke("predict", run, pair[0], tmp_path / "other.tif", "--confidence", tmp_path / "sure.tif")
    assert refused.exit_code == 1 and "confidence is the probability of a class" in refused.stderr
    scored = invoke("evaluate", run, chips, report, "--split", "val", "--mosaic", mosaic, "--json")
    figures, seams = json.loads(scored.stdout), json.loads(predicted.stdout)
    assert {"path", "l1", "rmse", "psnr", "ssim", "corner_ratio"} <= set(figures)
    assert f"geop2p evaluate {run} {chips} {report} --split val --mosaic {mosaic}" in report.read_text()
    compared = invoke("evaluate", mosaic, pair[1], tmp_path / "mosaic.html")
    assert compared.stdout.splitlines()[-1] == str(tmp_path / "mosaic.html")
    assert f"geop2p evaluate {mosaic} {pair[1]} {tmp_path / 'mosaic.html'}" in (tmp_path / "mosaic.html").read_text()
    assert (seams["mode"], seams["tile_mismatch"]) == ("exact", 0)
    for name in ("tile_mismatch", "tile_mismatch_percent"):
        assert figures[name] == pytest.approx(seams[name])
    shown = invoke("info", mosaic)
    assert "synthetic: True" in shown.stdout and json.loads(invoke("info", run, "--json").stdout)["type"] == "model"


def test_tile_shows_what_each_split_holds_and_what_was_dropped(pair: tuple[Path, Path], tmp_path: Path) -> None:
    import numpy as np

    from geop2p.tiling.chips import ChipSet

    chips = tmp_path / "chips"
    result = invoke("tile", *pair, chips, "--size", 32, "--stride", 16, "--min-valid", 0.9)
    assert result.exit_code == 0 and result.stdout == f"{chips}\n"
    lines = [line.split() for line in result.stderr.splitlines()]
    chipset = ChipSet.open(chips)
    index = chipset.index()
    assert f"{len(index)} chips, 1 scenes, " in result.stderr
    header = next(number for number, line in enumerate(lines) if line[:1] == ["split"])
    assert lines[header][:4] == ["split", "chips", "share", "valid"]
    assert sorted(lines[header][4:]) == ["meadow", "road", "water"]
    for line, split in zip(lines[header + 1 : header + 4], ("train", "val", "test"), strict=True):
        own = index[index["split"] == split]
        shares = {"water": "source_1", "meadow": "source_2", "road": "source_5"}
        figures = [own["valid"].sum() / index["valid"].sum(), own["valid"].mean()]
        figures += [np.average(own[shares[name]], weights=own["valid"]) for name in lines[header][4:]]
        assert line == [split, str(len(own)), *(f"{value:.1%}" for value in figures)]
    ends = {len(line) for line in result.stderr.splitlines()[-8:] if "%" in line or "chips  share" in line}
    assert len(ends) == 1  # aligned
    dropped = {reason: count for reason, count in chipset.scenes[0].dropped.items() if count}
    assert set(dropped) == {"too little valid ground", "near another split"}
    for reason, count in dropped.items():
        assert [*reason.split(), str(count)] in lines
    assert len(index) + sum(dropped.values()) == 18 * 26


def test_info_checks_a_chip_set(pair: tuple[Path, Path], tmp_path: Path) -> None:
    import numpy as np

    from geop2p.tiling.chips import ChipSet

    chips = tmp_path / "chips"
    assert invoke("tile", *pair, chips, "--size", 64, "--min-valid", 0.5).exit_code == 0
    sound = invoke("info", chips, "--check")
    assert sound.exit_code == 0 and sound.stdout.splitlines()[-1] == "problems: none"
    assert json.loads(invoke("info", chips, "--check", "--json").stdout)["problems"] == []
    chipset = ChipSet.open(chips)
    index = chipset.table()
    moved, held = (np.flatnonzero(index["split"] == split)[0] for split in ("train", "test"))
    index.shapes[moved] = index.shapes[held]
    chipset.save(index)
    problems = [
        f"{index['id'][place]} ({split}) shares ground with {other} chips, or comes too near"
        for place, split, other in ((moved, "train", "test"), (held, "test", "train"))
    ]
    found, data = invoke("info", chips, "--check"), invoke("info", chips, "--check", "--json")
    assert found.exit_code == data.exit_code == 1
    assert found.stdout.splitlines()[-3:] == ["problems", *(f"  {problem}" for problem in problems)]
    assert json.loads(data.stdout)["problems"] == problems
    assert data.stderr == f"Error: {chips}: 2 problems, the first: {problems[0]}\n"
    assert found.stderr.endswith(data.stderr) and "problems" not in invoke("info", chips).stdout


def test_models_are_listed_as_a_table_and_as_json() -> None:
    shown, data = invoke("models"), json.loads(invoke("models", "--json").stdout)
    assert shown.exit_code == 0 and "54,409,603" in shown.stdout
    assert [entry["name"] for entry in data["systems"]] == ["pix2pix", "pix2pix-paper", "pix2pix-geo"]
    assert all(f"  {entry['name']} " in shown.stdout for entries in data.values() for entry in entries)


def test_repeated_settings_reach_the_recipe(pair: tuple[Path, Path], tmp_path: Path) -> None:
    assert invoke("tile", *pair, tmp_path / "chips", "--size", 32).exit_code == 0
    small = ("train", tmp_path / "chips", tmp_path / "run", "--recipe", "pix2pix", "--steps", 1, "--width", 2)
    done = invoke(*small, "--loss", "l1+gan", "--set", "up=resize", "--set", "patch=16")
    assert done.exit_code == 0, done.output
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["set"], config["loss"]) == (["up=resize", "patch=16"], "l1+gan")
    wrong = invoke(*small, "--set", "patch=17")
    assert wrong.exit_code == 1 and wrong.stderr.startswith("Error: patch is '17', expected 1 or 16")


def test_errors_are_one_line_and_exit_with_one(pair: tuple[Path, Path], tmp_path: Path) -> None:
    result = invoke("tile", tmp_path / "none.tif", pair[1], tmp_path / "chips")
    assert result.exit_code == 1 and result.stdout == ""
    assert result.stderr == f"Error: {tmp_path / 'none.tif'}: no such file\n"
    result = invoke("tile", *pair, tmp_path / "chips", "--size", 4)
    assert result.exit_code == 1 and result.stderr == "Error: size is 4, expected at least 16\n"


def test_usage_errors_exit_with_two(tmp_path: Path) -> None:
    assert invoke("tile").exit_code == 2
    assert invoke("predict", "a", "b", "c", "--device", "toaster").exit_code == 2
    assert invoke("nonsense").exit_code == 2


@pytest.mark.parametrize(("given", "expected"), [((), "auto"), (("auto",), "auto"), (("512",), 512), (("big",), None)])
def test_tiles_have_a_size_or_an_automatic_one(
    monkeypatch: pytest.MonkeyPatch, given: tuple[str, ...], expected: str | int | None
) -> None:
    seen: list[PredictConfig] = []

    def watched(*arguments: object, **_: object) -> None:
        seen.extend(one for one in arguments if isinstance(one, PredictConfig))
        raise GeoP2PError("enough")

    monkeypatch.setattr("geop2p.predict", watched)
    result = invoke("predict", "run", "in.tif", "out.tif", *(("--tile-size", *given) if given else ()))
    if expected is None:
        assert result.exit_code == 2 and "'big' is neither a whole number nor auto" in result.stderr
    else:
        assert result.exit_code == 1 and [config.tile_size for config in seen] == [expected]


def test_the_wheel_holds_the_command(tmp_path: Path) -> None:
    """Built, installed without dependencies, run from elsewhere: only files of the wheel are used."""
    root = Path(__file__).parents[1]
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(root)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(wheel)], check=True, capture_output=True)
    assert sorted(path.name for path in site.iterdir() if path.suffix == "" and path.name != "bin") == [
        "geop2p", "geop2p_cli",
    ]  # fmt: skip
    assert (site / "geop2p_cli" / "sample_data" / "image.tif").is_file()
    assert (site / "geop2p" / "evaluation" / "report.html.j2").is_file()
    environment = os.environ | {"PYTHONPATH": str(site)}
    script = "import geop2p, sys; print(geop2p.__file__); from geop2p_cli.main import main; main(['--help'])"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(str(site)) and "tile" in done.stdout


FULL = Path("/dev/full")  # a device on which nothing has room


@pytest.mark.skipif(not FULL.exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("words", [["--help"], ["--version"], ["tile", "--help"]])
def test_what_finds_no_room_on_stdout_is_one_line(words: list[str]) -> None:
    with FULL.open("w") as nowhere:
        done = subprocess.run(
            [sys.executable, "-m", "geop2p", *words], stdout=nowhere, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 1 and done.stderr.decode().count("\n") == 1 and b"no space left" in done.stderr


@pytest.mark.skipif(os.name != "posix", reason="a shell closes the streams")
@pytest.mark.parametrize("closing", ["2>&-", "2</dev/null", "<&- >&- 2>&-"])
def test_closed_streams_hinder_no_command(tmp_path: Path, closing: str) -> None:
    """A closed one may come as nothing, or as the number of a file that is open for reading, as a shell's script is."""
    made = tmp_path / "made.tif"
    sample = Path(__file__).parent.parent / "sample_data"
    command = [
        sys.executable,
        "-m",
        "geop2p",
        "tile",
        sample / "landcover.tif",
        sample / "image.tif",
        made,
        "--size=256",
    ]
    line = f"{shlex.join(map(str, command))} --format packed {closing}"
    assert subprocess.run(line, shell=True, check=False).returncode == 0
    assert (made / "chipset.json").is_file()


class Written:
    """A stream that is no file, as that of a notebook."""

    def __init__(self, number: int | None = None) -> None:
        self.text, self._number = "", number

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass

    def fileno(self) -> int:
        if self._number is None:
            raise AttributeError
        return self._number


@pytest.mark.parametrize("number", [None, -1])
def test_streams_that_are_no_files_stay(monkeypatch: pytest.MonkeyPatch, number: int | None) -> None:
    stream = Written(number)
    monkeypatch.setattr(sys, "stdout", stream)
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0 and stream.text.startswith("geop2p, version")


@pytest.mark.parametrize("place", ["s3://bucket/out", "https://example.org/out", "/vsimem/out"])
def test_outputs_elsewhere_are_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    sample = Path(__file__).parent.parent.resolve() / "sample_data"
    monkeypatch.chdir(tmp_path)
    result = invoke("tile", str(sample / "landcover.tif"), str(sample / "image.tif"), place)
    assert result.exit_code == 1 and "results are written to disks of this machine" in result.stderr
    assert not list(tmp_path.iterdir()) and not Path("/vsimem/out").exists()


def test_a_demo_replaces_no_file_of_somebody_else(tmp_path: Path) -> None:
    for name in ("report.html", "overview.png", "prediction.tif"):
        folder = tmp_path / name.replace(".", "_")
        folder.mkdir()
        (folder / name).write_text("mine")
        result = invoke("demo", str(folder))
        assert result.exit_code == 1 and f"{name}: exists; give another name or --overwrite" in result.stderr
        assert [path.name for path in folder.iterdir()] == [name] and (folder / name).read_text() == "mine"


def test_a_line_and_a_progress_bar_do_not_share_a_row(capfd: pytest.CaptureFixture[str]) -> None:
    handler = AboveBars(sys.stderr)
    with tqdm(total=2, desc="predict", file=sys.stderr) as bar:
        bar.update()
        handler.emit(logging.LogRecord("geop2p", logging.WARNING, "", 0, "a block is damaged", None, None))
    rows = [row.rstrip() for row in re.split(r"[\r\n]", capfd.readouterr().err)]
    assert "a block is damaged" in rows
