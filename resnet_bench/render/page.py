"""The report as one HTML page without network access or scripts: what was run, tables, figures, claims, commands.

Its text comes from result files that anyone may have written, so all of it is escaped: by Jinja2, in tables by
`Table.render("html")`. Figures are images in the page, so scripts and links in them have no effect.
"""

from __future__ import annotations

import base64
import functools
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2

from resnet_bench.analysis import claims, comparison
from resnet_bench.analysis.series import Group, groups
from resnet_bench.analysis.speed import over_training
from resnet_bench.errors import UserError
from resnet_bench.render import captions, claims_table, comparison_tables, speed_tables
from resnet_bench.render.captions import dataset_text, setting_text
from resnet_bench.render.drawing import require_matplotlib
from resnet_bench.render.figures import figures
from resnet_bench.render.paper_tables import tables
from resnet_bench.render.table import Table
from resnet_bench.results.reading import ResultFile
from resnet_bench.results.samples import Samples
from resnet_bench.schema import AccuracyResult, EpochTimeResult, ParametersResult

PICTURES_BYTES = 2_500_000
"""The most that all figures together may take, so that the page stays below 3 MB."""


@dataclass(frozen=True)
class Facts:
    """Names with their values, below a heading of their own."""

    heading: str
    items: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Picture:
    """A drawn figure.

    Attributes:
        alt: what it shows, for those who cannot see it.
        svg: the document. It is embedded as an image, so that no script in it runs and nothing in it is fetched.
    """

    title: str
    alt: str
    caption: str
    svg: str


@dataclass(frozen=True)
class Commands:
    """Lines for a shell."""

    lines: Sequence[str]


Part = str | Table | Picture | Facts | Commands
"""What a section is made of; a string is a paragraph."""


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    heading: str
    parts: Sequence[Part]

    @property
    def id(self) -> str:
        return re.sub(r"\W+", "-", self.heading.lower()).strip("-")


def document(title: str, sections: Sequence[Section]) -> str:
    """The sections as one HTML document, which can always be written as UTF-8."""
    text = _template().render(title=title, sections=sections)
    return text.encode("utf-8", "replace").decode("utf-8")  # a damaged file may hold unpaired surrogates


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("resnet_bench.render", ""), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["base64"] = lambda text: base64.b64encode(text.encode()).decode()
    environment.tests |= {
        "table": lambda part: isinstance(part, Table),
        "picture": lambda part: isinstance(part, Picture),
        "facts": lambda part: isinstance(part, Facts),
    }
    return environment.get_template("page.html.jinja")


def report(samples: Samples, compare_with: Samples | None = None) -> str:
    """The page of these results. Without matplotlib, it says how to get the figures.

    Args:
        samples: any number of files.
        compare_with: one file, of another machine or version, that each file of `samples` is compared with. The page
            names the files that cannot be compared, with the reason.

    Raises:
        UserError: none of the files can be compared with `compare_with`.
    """
    judged = claims_table.table(claims.judge(samples))
    sections = [
        Section("What was run", [_introduction(judged), *map(_group_facts, groups(samples)), _file_facts(samples)]),
        Section("Tables", tables(samples)),
        Section("Figures", _pictures(samples)),
        Section("Claims", [judged]),
    ]
    if compare_with is not None:
        sections.append(Section("Comparison", _comparison(samples, compare_with)))
    sections.append(Section("How to reproduce it", _reproduction(samples.files, compare_with)))
    return document("Five small residual networks, trained on a CPU", sections)


# ---------------------------------------------------------------------------------------------------------------------
# What was run


def _introduction(judged: Table) -> str:
    return (
        "A study trained five small residual networks on CIFAR-100 on a laptop's CPU. This page has what resnet_bench "
        f"measured of them, beside what the study published. Its claims: {judged.caption}."
    )


def _group_facts(group: Group) -> Facts:
    machine, dataset = group.machine, group.dataset
    keys = ("batch_size", "lr", "schedule", "warmup_steps", "epochs")
    recipes = [{key: s.setting.get(key) for key in keys if key in s.setting} for s in group.series]
    recipe = recipes[0] if all(r == recipes[0] for r in recipes) else {}
    items = {
        "Machine": captions.group_machine_text(group),
        "Memory": _gigabytes(machine.get("memory_bytes")),
        "System": str(machine.get("os") or "unknown"),
        "Data set": dataset_text(dataset),
        "SHA-256": f"{dataset.sha256} (images and labels in use)",
        "Settings": setting_text(group),
        "Recipe": ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in recipe.items()),
        **_networks(group),
        **_how_times_were_measured(group),
    }
    return Facts(f"{dataset.name} on {captions.cpu_text(group)}", [i for i in items.items() if i[1]])


def _networks(group: Group) -> dict[str, str]:
    """What was measured, with the networks of which that much was measured."""
    names: dict[str, list[str]] = {}
    for s in group.series:
        names.setdefault(", ".join(_sizes(s.accuracies, s.times)), []).append(captions.name(group, s))
    return {f"Networks {sizes}": ", ".join(found) for sizes, found in names.items()}


def _sizes(accuracies: Sequence[AccuracyResult], times: Sequence[EpochTimeResult]) -> Iterable[str]:
    if accuracies:
        seeds = ", ".join(str(r.seed) for r in accuracies)
        epochs = sorted({len(r.epochs) for r in accuracies})
        spread = str(epochs[0]) if len(epochs) == 1 else f"{epochs[0]} to {epochs[-1]}"
        yield f"trained for {spread} epoch{'' if epochs == [1] else 's'} (seed{'s' * (len(accuracies) > 1)} {seeds})"
    if times:
        yield f"timed in {' and '.join(sorted({r.mode for r in times}))} mode"


def _how_times_were_measured(group: Group) -> dict[str, str]:
    """Processes, blocks and points, and how the states of the points were reached; empty without epoch times."""
    notes = captions.measurement_notes(group)
    if any(over_training(s) for s in group.series):
        notes += speed_tables.aged_notes(group) or ["Every state was trained from the first step on."]
    return {"How times were measured": " ".join(notes)} if notes else {}


def _file_facts(samples: Samples) -> Facts:
    return Facts(
        "Files", [(f.path.name, f"saved {f.datetime[:19]}" if f.datetime else "saved by train") for f in samples.files]
    )


def _gigabytes(count: Any) -> str:
    return f"{count / 2**30:.1f} GiB" if isinstance(count, int) and 0 < count < 2**80 else "unknown"


# ---------------------------------------------------------------------------------------------------------------------
# Figures


def _pictures(samples: Samples) -> list[Part]:
    try:
        require_matplotlib()
    except UserError as error:
        return [str(error)]
    made, skipped = figures(samples)
    drawn: list[Part] = []
    left = PICTURES_BYTES
    for figure in made:
        svg = figure.svg()
        left -= len(svg) * 4 // 3  # in base64
        if left < 0:
            skipped.append(
                f"{len(made) - len(drawn)} more would make this page too large; `resnet-bench report --figures` writes "
                "all of them."
            )
            break
        drawn.append(Picture(figure.title, figure.alt, figure.caption, svg))
    return [*drawn, *skipped]


# ---------------------------------------------------------------------------------------------------------------------
# Comparison


def _comparison(samples: Samples, other: Samples) -> list[Part]:
    """`other` compared with each file; then, for the files that it cannot be compared with, the reason."""
    compared: list[Part] = []
    refused: dict[str, str] = {}
    (others,) = other.files
    for file in samples.files:
        try:
            compared += comparison_tables.tables(comparison.compare(Samples((file,)), other))
        except UserError as error:
            # The page may be published, so it has only the names of files, not their paths.
            reason = str(error).replace(str(file.path), file.path.name).replace(str(others.path), others.path.name)
            refused[str(error)] = f"{file.path.name} is left out of the comparison: {reason}"
    if not compared:
        raise UserError(" ".join(refused))
    return [*compared, *refused.values()]


# ---------------------------------------------------------------------------------------------------------------------
# How to reproduce it


def commands(files: Sequence[ResultFile], compare_with: Samples | None = None) -> list[str]:
    """The command lines that make such results and this page. They name everything that decides a result."""
    lines = [line for file in files for line in _made_by(file)]
    names = shlex.join(f.path.name for f in files)
    other = f" --compare-with {shlex.quote(compare_with.files[0].path.name)}" if compare_with else ""
    return [*lines, f"resnet-bench report {names} --claims{other} --html report.html"]


def _made_by(file: ResultFile) -> list[str]:
    """The line of `train --output`, or one line for each setting and set of networks in a file of benchmarks."""
    asked: dict[tuple[str, str], dict[str, None]] = {}  # (options, kind) → networks
    for r in file.results:
        if isinstance(r, AccuracyResult) and r.machine is not None:  # only `train` writes it there
            return [f"resnet-bench train {shlex.quote(r.architecture)} {_options(r)} --output {_quoted(file)}"]
        if isinstance(r, AccuracyResult | EpochTimeResult):
            asked.setdefault((_options(r), r.kind), {})[r.architecture] = None
    counted = dict.fromkeys(r.architecture for r in file.of_kind(ParametersResult))
    if counted:
        options = next((o for (o, _), names in asked.items() if names.keys() == counted.keys()), "")
        asked = {(options, "parameters"): counted, **asked}
    sessions: dict[tuple[str, str], list[str]] = {}
    for (options, kind), names in asked.items():
        sessions.setdefault((options, ",".join(names)), []).append(f"benchmarks/test_{kind}.py")
    lines = []
    for (options, networks), tests in sessions.items():
        timing = _timing_options(file) if "benchmarks/test_epoch_time.py" in tests else ""
        words = ["pytest", *tests, "--architectures", shlex.quote(networks), options, timing]
        lines.append(" ".join(filter(None, [*words, f"--benchmark-save={shlex.quote(_stem(file))}"])))
    return lines


def _timing_options(file: ResultFile) -> str:
    """How the session of a file timed epochs: all of its networks alike."""
    timed = file.of_kind(EpochTimeResult)
    modes = {r.mode for r in timed}
    processes = max((len(r.processes) for r in timed), default=0)
    options = [f"--processes {processes}"] if processes else []
    if states := {point.state for r in timed for point in r.points}:
        options.append(f"--states {'aged' if 'aged' in states else 'trained'}")
    if modes:
        options.append(f"--epoch-mode {modes.pop() if len(modes) == 1 else 'both'}")
    if whole := [r for r in timed if r.mode == "full"]:
        options.append(f"--rounds {max(1, *(len(r.blocks) // max(1, len(r.processes)) for r in whole))}")
    return " ".join(options)


def _options(run: AccuracyResult | EpochTimeResult) -> str:
    data, recipe = run.dataset, run.recipe
    name = data.name.replace("folder:", "folder:PATH/TO/", 1) if data.name.startswith("folder:") else data.name
    values = {
        "dataset": name,
        "train-images": data.train_images if data.subset else None,
        "test-images": data.test_images if data.subset else None,
        "engine": run.engine,
        "pipeline": run.pipeline,
        "epochs": recipe.get("epochs"),
        "batch-size": recipe.get("batch_size"),
        "lr": recipe.get("lr"),
        "schedule": None if recipe.get("schedule") == "constant" else recipe.get("schedule"),
        "warmup-steps": recipe.get("warmup_steps") or None,
        "seed": run.seed,
        "workers": run.workers,
        "threads": run.threads,
    }
    return " ".join(f"--{key} {shlex.quote(str(value))}" for key, value in values.items() if value is not None)


def _quoted(file: ResultFile) -> str:
    return shlex.quote(file.path.name)


def _stem(file: ResultFile) -> str:
    """The name given to `--benchmark-save`, which numbers the files: `0001_quick.json` is `quick`."""
    return re.sub(r"^\d{4}_", "", file.path.stem)


def _reproduction(files: Sequence[ResultFile], compare_with: Samples | None) -> list[Part]:
    setup = ['pip install -e ".[figures]"']
    return [
        "In a clone of resnet_bench, with Python 3.10 or later:",
        Commands([*setup, *commands(files, compare_with)]),
        "The same seed, threads and machine give the same accuracies to the last digit; times differ from run to run, "
        "which is what their intervals are for. --processes sets how many processes measure times, and --time-limit "
        "for how long.",
    ]
