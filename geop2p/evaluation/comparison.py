"""`compare`: several runs on the same chips, in one table."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from geop2p.config import CompareConfig
from geop2p.config.fields import config_or_default
from geop2p.errors import ChipSetError, ConfigError
from geop2p.evaluation.ablation import train_rows
from geop2p.evaluation.baseline import NO_TRAINING, LinearBaseline, fit_baseline
from geop2p.evaluation.checks import check_same_sides
from geop2p.evaluation.example_chips import place_strip, ranked_rows
from geop2p.evaluation.judge import judge_fits, judge_of
from geop2p.evaluation.pretrained_scores import SCORES as PRETRAINED_SCORES
from geop2p.evaluation.pretrained_scores import PretrainedScores
from geop2p.evaluation.provenance import leakage_warning, run_of, starts_of, trained_on
from geop2p.evaluation.report import Strip, check_not_read, check_page, check_report, write_page
from geop2p.evaluation.scored_chips import ScoredChips, check_split, load_scored_chips
from geop2p.evaluation.scoring import CLASS_SCORES, IMAGE_SCORES, ChipScores, Predict, Scorer, notes_on
from geop2p.evaluation.tables import COLUMNS, MARKS, headings, ranked, write_csv, write_markdown
from geop2p.metrics import error_unit
from geop2p.raster.atomic import check_new, replacing, write_json
from geop2p.tiling.chips import DESCRIPTION, ChipSet
from geop2p.training.checkpoint import CONFIG, chips_digest
from geop2p.training.validation import predict_chips
from geop2p.translator import FILE_NAME, Translator, read_card

TABLES = (".md", ".csv", ".json")
BASELINE, REAL = "baseline", "real imagery"  # what the rows of no run are called
JUDGE_SCORES = ("accuracy", "class_accuracy", "miou")


@dataclass
class Comparison:
    """What the page of a comparison shows."""

    title: str
    result: dict[str, Any]
    labels: dict[str, str]
    marks: dict[bool | None, str] = field(default_factory=lambda: dict(MARKS))
    strips: list[Strip] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)


def compare(
    runs: str | Path | Sequence[str | Path],
    report: str | Path,
    config: CompareConfig | None = None,
    *,
    commands: Sequence[str] = (),
    overwrite: bool = False,
    progress: bool = False,
) -> dict[str, Any]:
    """Score runs on one split of one chip set, and write a page and the table as Markdown, CSV and JSON beside it.

    Args:
        runs: Runs that were trained on one chip set, each its folder or a file of weights in it; with `ablation` one
            chip set.
        report: HTML file to write; the tables take its stem.
        config: Settings.
        commands: Shown on the page as how to repeat it.
        overwrite: Replace an existing report.
        progress: Show progress bars.

    Returns:
        path, tables (their paths), chip_set, split, chips, unit (of L1 and RMSE), columns (names of the scores that any
        row has), rows (the best first) and notes. A row has name, path, recipe and steps of its run, and under the
        names of the scores `value`, `interval` (95 % over blocks), `rank` and `tied` (whether its difference to the
        best could be none, by the same draws of blocks; None where there are no draws). The baseline and real imagery
        have no rank.

    Raises:
        CheckpointError: A run is missing or damaged.
        ChipSetError: The runs were trained on different chip sets, or the chips do not fit them.
        ConfigError: The chip set is not found, or a setting does not fit.
        OutputError: The report exists.
    """
    start = time.monotonic()
    config, report = config_or_default(config, CompareConfig), Path(report)
    runs = [runs] if isinstance(runs, (str, Path)) else runs
    _check_outputs(report, overwrite, [*map(Path, runs), *([config.chips] if config.chips else [])])
    notes: list[str] = []
    if config.ablation is not None:
        if len(runs) != 1:
            raise ConfigError(f"--ablation trains on one chip set, {len(runs)} names were given: CHIPS REPORT")
        chipset = ChipSet.open(runs[0])
        check_split(chipset, config.split)
        if config.judge is not None:
            judge_fits(chipset)
        pretrained = PretrainedScores(chipset.target, config)
        folders, left_out = train_rows(chipset, report.with_name(f"{report.stem}_runs"), config, progress)
        notes, digest = left_out, chips_digest(chipset.folder)
    else:
        folders = _named(runs)
        chipset, digest = chip_set_of(list(folders.values()), config.chips)
        _check_outputs(report, overwrite, [chipset.folder])
        pretrained = PretrainedScores(read_card(next(iter(folders.values()))).target, config)
    cards = [read_card(folder) for folder in folders.values()]
    for card in cards:
        check_same_sides(card, chipset)
    first, known = cards[0], leakage_warning(chipset.folder, config.split, digest, starts_of(cards))
    ground = load_scored_chips(chipset, (first.source, first.target), config.split, config.sample, known, progress)
    scorer = Scorer(ground, judge_of(chipset, config, report, progress), pretrained, progress)
    predictors, found, rows = dict[str, Predict](), dict[str, ChipScores](), list[dict[str, Any]]()
    withheld, beware = dict[str, None](), dict[str, list[str]]()
    for name, folder in folders.items():
        translator = Translator.load(folder, config.device)
        predictors[name] = partial(predict_chips, translator, ground.arrays)
        found[name] = scorer.score(name, predictors[name], config.batch_size)
        said = {"recipe": translator.card.recipe, "steps": translator.card.provenance.get("steps")}
        figures = scorer.figures(name, found[name])
        withheld |= _withheld(figures, config)
        beware[name] = notes_on(figures) + _without_error(figures)
        rows.append({"name": name, "path": str(folder)} | said | _measures(figures, found[name]))
    straight = fit_baseline(chipset, ground.source, ground.target, progress)
    if straight is None:
        notes.append(f"Left out: {BASELINE} ({NO_TRAINING}).")
    others = [*_baseline_row(scorer, straight, config.batch_size), *_real_row(figures)]
    columns = [name for name in COLUMNS if any(name in row for row in rows)]
    others = [row for row in others if any(name in row for name in columns)]
    rows = ranked(rows, columns)
    for row in [*rows, *others]:
        for name in columns:
            row.get(name, {}).pop("draws", None)
    result: dict[str, Any] = {"path": str(report), "tables": [str(report.with_suffix(suffix)) for suffix in TABLES]}
    result |= {"chip_set": str(chipset.folder), "split": config.split, "chips": len(ground.rows), "columns": columns}
    result |= {"unit": error_unit(ground.target), "rows": [*rows, *others]}
    result["notes"] = notes + list(withheld) + _of_runs(beware) + ground.notes
    page = Comparison(f"{len(rows)} runs on {config.split} chips of {chipset.folder.name}", result, headings(result))
    page.strips = _strips(ground, predictors, found)
    page.provenance = {name: read_card(folder).provenance for name, folder in folders.items()}
    page.commands = list(commands)
    result["seconds"] = round(time.monotonic() - start, 2)
    with ExitStack() as stack:  # they take their names when all are whole
        paths = [report, *map(report.with_suffix, (".md", ".csv", ".json"))]  # the first takes its name last
        whole, markdown, table, data = (stack.enter_context(replacing(path)) for path in paths)
        write_markdown(markdown, result)
        write_csv(table, result)
        write_json(data, result)
        write_page(whole, page, "comparison.html.j2")
    return result


def _check_outputs(report: Path, overwrite: bool, folders: Sequence[Path]) -> None:
    """Refuse a page and tables that would destroy something: of runs and chip sets what tells their settings, too.

    Raises:
        ConfigError: A file to write is one that is read.
        OutputError: A file to write exists.
    """
    read = [run_of(folder) / name for folder in folders for name in (CONFIG, DESCRIPTION)]
    check_page(report)
    for table in (report.with_suffix(suffix) for suffix in TABLES):
        check_not_read(table, read)
        check_new(table, overwrite)
    check_report(report, overwrite, [*folders, *read])


def _named(runs: Sequence[str | Path]) -> dict[str, Path]:
    """Runs by name, or by their path where two have one name, or it is that of another row.

    The name is that of the folder; of a file of weights the file's is added.

    Raises:
        ConfigError: None is given, or one twice.
    """
    folders = [Path(run) for run in runs]
    if not folders:
        raise ConfigError("no run was given, expected at least one")
    files = [_weights(folder) for folder in folders]
    twice = [folder for number, folder in enumerate(folders) if files[number] in files[:number]]
    if twice:
        raise ConfigError(f"{twice[0]}: the same run as {folders[files.index(_weights(twice[0]))]}; give each once")
    names = [run_of(folder).resolve().name + f"/{folder.name}" * folder.is_file() for folder in folders]
    taken = {name for name in names if names.count(name) > 1} | {BASELINE, REAL}
    # a path of one word would be a name again
    paths = [str(folder if len(folder.parts) > 1 else folder.resolve()) for folder in folders]
    return {path if name in taken else name: folder for name, path, folder in zip(names, paths, folders, strict=True)}


def _weights(run: Path) -> Path:
    return (run / FILE_NAME if run.is_dir() else run).resolve()


def chip_set_of(folders: Sequence[Path], given: Path | None) -> tuple[ChipSet, str]:
    """The chip set to score runs on, and the digest of the one that they were trained on.

    Args:
        folders: Of the runs, or files of weights in them.
        given: A chip set; None: the one that they were trained on, looked for beside them and in the working folder.

    Raises:
        CheckpointError: A folder is no run.
        ChipSetError: The runs were trained on different ones.
        ConfigError: It is not found.
    """
    trained = {folder: trained_on(folder) for folder in folders}
    digests = set(trained.values())
    if len(digests) > 1:
        told = "; ".join(
            f"{folder} on {read_card(folder).provenance['chips']} ({trained[folder]})" for folder in folders
        )
        raise ChipSetError(f"the runs were trained on different chip sets, or on one that changed since: {told}")
    (digest,) = digests
    if given is not None:
        return ChipSet.open(given), digest
    name = read_card(folders[0]).provenance["chips"]
    for place in [*(run_of(folder).resolve().parent for folder in folders), Path.cwd()]:
        if (place / name / DESCRIPTION).is_file() and chips_digest(place / name) == digest:
            return ChipSet.open(place / name), digest
    raise ConfigError(f"the chip set '{name}' of the runs ({digest}) does not lie beside them; give it with --chips")


def _withheld(figures: dict[str, Any], config: CompareConfig) -> dict[str, None]:
    """Why figures of a judge that was asked for are not given, each reason once."""
    reasons = figures["reasons"] if config.judge is not None else {}
    return {f"Not given: {what} ({reasons[what]}).": None for what in ("judge", "frechet") if what in reasons}


def _of_runs(beware: dict[str, list[str]]) -> list[str]:
    """What to beware of in the scores of runs, with the names of those that it is true of unless that is all."""
    said = dict.fromkeys(note for notes in beware.values() for note in notes)
    of = {note: [name for name, notes in beware.items() if note in notes] for note in said}
    return [note if len(names) == len(beware) else f"{', '.join(names)}: {note}" for note, names in of.items()]


def _without_error(figures: dict[str, Any]) -> list[str]:
    """What to say of a run whose PSNR is infinite: it is not among those that the table ranks."""
    if figures.get("rmse") != 0:
        return []
    return ["No error at all, so that its PSNR is not given and is better than all that are."]


def _measures(figures: dict[str, Any], found: ChipScores) -> dict[str, Any]:
    """The scores of a row, those that are None left out, with their draws of blocks where they have any."""
    measures: dict[str, Any] = {}
    for name in (*IMAGE_SCORES, *CLASS_SCORES):
        if figures.get(name) is not None:
            measures[name] = {"value": figures[name], "interval": figures["intervals"][name]}
    if figures["judge"] is not None and (read := figures["judge"]["generated"]) is not None:
        for name in JUDGE_SCORES:
            measures[f"judge_{name}"] = {"value": read[name], "interval": read["intervals"][name]}
    if figures["frechet"] is not None and figures["frechet"]["generated"] is not None:
        measures["frechet"] = {"value": figures["frechet"]["generated"], "interval": figures["frechet"]["interval"]}
    for name in PRETRAINED_SCORES:
        if figures.get(name) is not None:
            measures[name] = {"value": figures[name], "interval": None}
    if figures["corner_ratio"] is not None:
        low, high = figures["corner_ratio_interval"]
        measures["corner_ratio"] = {"value": figures["corner_ratio"], "interval": None if low is None else [low, high]}
    for prefix, scores in (("", found.scores), ("judge_", found.judged)):
        own = [prefix + name for name in (*IMAGE_SCORES, *CLASS_SCORES)]
        names = [name for name in own if name in measures and measures[name]["interval"]]
        drawn = list(scores.draws()) if names else []
        for name in names:
            measures[name]["draws"] = [draw.get(name.removeprefix(prefix)) for draw in drawn]
    if "corner_ratio" in measures and measures["corner_ratio"]["interval"]:
        measures["corner_ratio"]["draws"] = found.position.draws()
    return measures


def _baseline_row(scorer: Scorer, straight: LinearBaseline | None, batch_size: int) -> list[dict[str, Any]]:
    if straight is None:
        return []
    flat = scorer.score(BASELINE, partial(straight.predict_rows, scorer.ground.arrays), batch_size)
    return [{"name": BASELINE} | _measures(scorer.figures(BASELINE, flat), flat)]


def _real_row(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """What the judge reads in real imagery: the ceiling of imagery as rich, and the floor of the Frechet distance."""
    row: dict[str, Any] = {"name": REAL}
    if figures["judge"] is not None:
        read = figures["judge"]["real"]
        row |= {f"judge_{name}": {"value": read[name], "interval": read["intervals"][name]} for name in JUDGE_SCORES}
    if figures["frechet"] is not None and figures["frechet"]["real"] is not None:
        row["frechet"] = {"value": figures["frechet"]["real"], "interval": None}
    return [row]


def _strips(ground: ScoredChips, predictors: dict[str, Predict], found: dict[str, ChipScores]) -> list[Strip]:
    """The same places for all runs, from the best to the worst by the mean of their errors."""
    together = np.mean([scores.errors for scores in found.values()], axis=0)
    return [place_strip(ground, row, said, predictors) for row, said in ranked_rows(ground, together)]
