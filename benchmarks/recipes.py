"""Which recipe is best: every row trained on every chip set with every seed on as many chips, then scored alike.

    python benchmarks/recipes.py out chips1 chips2 --images 6000 --width 16 --seed 0 --seed 1 \\
        --row pix2pix=pix2pix --row "no matching=pix2pix-geo,feature_weight=0"

A row is NAME=RECIPE, followed by fields of the recipe to set; without any, the rows are the recipes. Runs, judges and
tables go to the folder OUT; repeated, it goes on where it was. Scores are those of `geop2p compare` on one split, by a
judge that is trained once for a chip set; tile mismatch and seam index are those of a mosaic of the first scene of that
split. Prints the tables for people on stderr and one JSON object on stdout: for every chip set and row a list of
scores, one for each seed, with their 95 % intervals over blocks.
"""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

import geop2p
from geop2p.config import CompareConfig, PredictConfig, TrainConfig
from geop2p.raster.atomic import write_json
from geop2p.tiling.chips import ChipSet
from geop2p.tiling.opening import layer_path
from geop2p.training.recipes import RECIPES, recipe_of

SCORES = ("judge_miou", "frechet", "l1", "psnr", "ssim", "corner_ratio")
SEAMS = ("tile_mismatch_percent", "seam_index")

Row = dict[str, Any]


def settings_of(row: str, options: dict[str, Any], seed: int) -> tuple[str, TrainConfig]:
    """Name and training of a row: as many steps as its batches need for the images."""
    name, equals, text = row.partition("=")
    recipe, *changes = text.split(",")
    if not equals or recipe not in RECIPES:
        raise click.UsageError(f"--row is '{row}', expected NAME=RECIPE with one of the recipes {', '.join(RECIPES)}")
    what: dict[str, Any] = {"recipe": recipe, "set": tuple(changes), "width": options["width"], "seed": seed}
    what |= {"device": options["device"], "precision": options["precision"]}
    batch = recipe_of(TrainConfig(**what)).batch_size
    return name, TrainConfig(**what, steps=-(-options["images"] // batch))


def train(chips: Path, run: Path, config: TrainConfig) -> float:
    """Seconds of a training; one that is finished is not repeated, one with other settings is refused."""
    told, start = run.with_name(f"{run.name}.seconds.json"), time.perf_counter()
    geop2p.train(chips, run, config)
    if not told.exists():
        write_json(told, {"seconds": round(time.perf_counter() - start, 1)})
    seconds: float = json.loads(told.read_text())["seconds"]
    return seconds


def seams(run: Path, chipset: ChipSet, options: dict[str, Any]) -> dict[str, Any]:
    """Seam figures of a mosaic of the first scene of the split."""
    name = chipset.entries(options["split"])[0].scene
    scene = next(scene for scene in chipset.scenes if scene.id == name)
    layer = layer_path(scene.source, chipset.folder)
    output, told = (run.with_name(f"{run.name}{ending}") for ending in (".tif", ".seams.json"))
    if not told.exists():
        config = PredictConfig(device=options["device"], source_field=scene.options.get("source_field"))
        made = geop2p.predict(run, layer, output, config, overwrite=True)
        write_json(told, {figure: getattr(made, figure) for figure in (*SEAMS, "mode")})
    found: dict[str, Any] = json.loads(told.read_text())
    return found


def compared(folder: Path, runs: Sequence[Path], chips: Path, options: dict[str, Any]) -> dict[str, Row]:
    """The rows of `geop2p compare` by name."""
    page = folder / "comparison.html"
    config = CompareConfig(
        split=options["split"],
        chips=chips,
        judge=options["judge"],
        judge_steps=options["judge_steps"],
        judge_folder=folder.parent / "judges",
        device=options["device"],
    )
    geop2p.compare(runs, page, config, overwrite=True)
    return {row["name"]: row for row in json.loads(page.with_suffix(".json").read_text())["rows"]}


def table(title: str, rows: dict[str, list[Row]]) -> str:
    """Markdown: the scores of a row, one for each seed."""
    columns = [
        name for name in (*SCORES, *SEAMS, "seconds") if any(name in one for ones in rows.values() for one in ones)
    ]
    lines = [["row", *columns], ["---"] * (1 + len(columns))]
    for name, ones in rows.items():
        lines.append([name, *(" / ".join(_short(one.get(column)) for one in ones) for column in columns)])
    return f"\n{title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _short(score: Any) -> str:
    if isinstance(score, dict):
        between = "" if score["interval"] is None else " ({:.3g} to {:.3g})".format(*score["interval"])
        return f"{score['value']:.4g}{between}"
    return "–" if score is None else f"{score:.4g}"


@click.command(help=__doc__)
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("chips", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--row", "rows", multiple=True, help="NAME=RECIPE[,KEY=VALUE...]; may be repeated.")
@click.option("--seed", "seeds", multiple=True, type=int, default=(0, 1), help="May be repeated (0 and 1).")
@click.option("--images", default=6000, help="Chips that every training sees.")
@click.option("--width", default=64, help="Channels of the first layer.")
@click.option("--split", default="val", help="Chips to score on.")
@click.option("--judge", default="unet", help="Segmenter that reads the imagery.")
@click.option("--judge-steps", default=600, help="Steps that it learns for.")
@click.option("--precision", default="auto", help="Of the trainings.")
@click.option("--device", default="auto", help="Where networks run.")
@click.option("--mosaic/--no-mosaic", default=True, help="Seam figures, for which the scenes must be at hand.")
def main(out: Path, chips: tuple[Path, ...], rows: tuple[str, ...], seeds: tuple[int, ...], **options: Any) -> None:
    """Train, score, print."""
    rows = rows or tuple(f"{name}={name}" for name in RECIPES)
    result: dict[str, dict[str, list[Row]]] = {}
    for seed in seeds:  # the first seed of all before the second of any
        for folder in chips:
            work, chipset, runs = out / folder.name / f"seed{seed}", ChipSet.open(folder), dict[str, Path]()
            extra = dict[str, Row]()
            for row in rows:
                name, config = settings_of(row, options, seed)
                runs[name] = work / name.replace(" ", "_")
                extra[name] = {"seconds": train(folder, runs[name], config)}
                if options["mosaic"]:
                    extra[name] |= seams(runs[name], chipset, options)
                print(f"{folder.name}, seed {seed}, {name}: {extra[name]}", file=sys.stderr)
            scored = compared(work, list(runs.values()), folder, options)
            found = result.setdefault(folder.name, {})
            for name, run in runs.items():
                found.setdefault(name, []).append(scored[run.name] | extra[name] | {"seed": seed})
            for name in ("baseline", "real imagery"):
                if name in scored:
                    found.setdefault(name, []).append(scored[name] | {"seed": seed})
            write_json(out / "recipes.json", {"options": options, "rows": list(rows), "scores": result})
    for name, ones in result.items():
        print(table(name, ones), file=sys.stderr)
    json.dump({"options": options, "rows": list(rows), "scores": result}, sys.stdout)


if __name__ == "__main__":
    main()
