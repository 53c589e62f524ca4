"""The report as one HTML page without network access or scripts: what was found, claims, and details that fold.

Its text comes from result files that anyone may have written, so all of it is escaped by Jinja2. Figures are SVG in the
page, of which `Figure.inline` keeps only what draws.
"""

from __future__ import annotations

import functools
import re
import shlex
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup, escape

from resnet_bench.analysis import claims, comparison
from resnet_bench.analysis.claims import UNDECIDED, JudgedClaim, Outcome
from resnet_bench.analysis.series import Group, groups
from resnet_bench.analysis.speed import over_training
from resnet_bench.errors import UserError
from resnet_bench.render import captions, claims_table, comparison_tables, findings, speed_tables
from resnet_bench.render.axes import DARK
from resnet_bench.render.captions import dataset_text, setting_text
from resnet_bench.render.drawing import NARROW, Figure, require_matplotlib
from resnet_bench.render.figures import figures, headlines
from resnet_bench.render.paper_tables import tables
from resnet_bench.render.table import Table
from resnet_bench.results.reading import ResultFile
from resnet_bench.results.samples import TRAINED, Samples
from resnet_bench.schema import (
    AccuracyResult,
    EpochTimeResult,
    ExplainResult,
    OverheadResult,
    ParametersResult,
    ScaleResult,
)

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
        svg: an element as `Figure.inline` gives it; it is not escaped.
        narrow: the same for a phone; empty where the reader of a phone has to scroll.
    """

    title: str
    caption: str
    svg: str
    narrow: str = ""


@dataclass(frozen=True)
class Findings:
    """Sentences, each a point of a list."""

    sentences: Sequence[str]


@dataclass(frozen=True)
class JudgedAlike:
    """The claims with one outcome."""

    outcome: Outcome
    claims: Sequence[JudgedClaim]

    @property
    def title(self) -> str:
        return f"{self.outcome.capitalize()}: {len(self.claims)}"

    @property
    def decided(self) -> bool:
        return self.outcome != UNDECIDED


@dataclass(frozen=True)
class Commands:
    """Lines for a shell."""

    lines: Sequence[str]


Part = str | Table | Picture | Facts | Findings | JudgedAlike | Commands
"""What a section is made of; a string is a paragraph."""


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it.

    Attributes:
        folded: whether tables, pictures and facts fold to their titles.
    """

    heading: str
    parts: Sequence[Part]
    folded: bool = False

    @property
    def id(self) -> str:
        return re.sub(r"\W+", "-", self.heading.lower()).strip("-")


class _Named(NamedTuple):
    """A part with a name that no other part of the page has; empty for a part without a title."""

    part: Part
    name: str


def document(title: str, sections: Sequence[Section]) -> str:
    """The sections as one HTML document, which can always be written as UTF-8."""
    text = _template().render(title=title, sections=sections, named=_names(sections), dark=DARK)
    return text.encode("utf-8", "replace").decode("utf-8")  # a damaged file may hold unpaired surrogates


def _names(sections: Sequence[Section]) -> dict[str, list[_Named]]:
    """The parts of each section, by its id. Where a title is there twice, the beginning of the caption is added."""
    titles = Counter(_title(part) for section in sections for part in section.parts)
    given: Counter[str] = Counter()

    def name(part: Part) -> str:
        own = _title(part)
        if own and titles[own] > 1 and isinstance(part, Table | Picture):
            what = "Figure: " if isinstance(part, Picture) and not own.startswith("Figure") else ""
            own = f"{what}{own}: {part.caption.partition(';')[0]}"
        given[own] += 1
        return f"{own} ({given[own]})" if own and given[own] > 1 else own

    return {section.id: [_Named(part, name(part)) for part in section.parts] for section in sections}


def _title(part: Part) -> str:
    if isinstance(part, Table | Picture | JudgedAlike):
        return part.title
    return part.heading if isinstance(part, Facts) else ""


WHOLE = re.compile(
    r"(\[[^\]]*\]"  # an interval
    r"|[▁-█|]{2,}"  # a sparkline
    r"|\d{4}-\d\d-\d\d"
    r"|\d (?:ms|s|min|h|%)(?!\w))"  # the end of a number, with its unit
)
"""What a line of a cell is not to end within. With one group, so that `split` keeps it."""


def _with_code(text: str) -> Markup:
    """The text escaped; what stands between backticks as code."""
    parts = re.split(r"`([^`]+)`", text)
    pieces = [Markup("<code>{}</code>").format(p) if i % 2 else escape(p) for i, p in enumerate(parts)]
    return Markup("").join(pieces)


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("resnet_bench.render", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["wholes_apart"] = WHOLE.split
    environment.filters["with_code"] = _with_code
    environment.tests |= {
        "table": lambda part: isinstance(part, Table),
        "picture": lambda part: isinstance(part, Picture),
        "facts": lambda part: isinstance(part, Facts),
        "findings": lambda part: isinstance(part, Findings),
        "claims": lambda part: isinstance(part, JudgedAlike),
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
    judgeable = any(isinstance(run.result, (*TRAINED, ParametersResult)) for run in samples.runs)
    judged = claims.judge(samples) if judgeable else []
    found = groups(samples)
    top, others = _pictures(samples, found)
    sections = [
        Section("What was found", [Findings(findings.sentences(samples, judged)), *top]),
        Section("Claims", _claims(judged) if judged else []),
    ]
    if compare_with is not None:
        sections.append(Section("Comparison", _comparison(samples, compare_with)))
    sections += [
        Section("Tables", tables(samples), folded=True),
        Section("Figures", others, folded=True),
        Section("What was run", [*map(_group_facts, found), _file_facts(samples)], folded=True),
        Section("How to reproduce it", _reproduction(samples.files, compare_with)),
    ]
    return document("Five small residual networks, trained on a CPU", _each_table_once(sections))


def _each_table_once(sections: Sequence[Section]) -> list[Section]:
    """The sections without tables that are there already, and without a section that is left empty."""
    seen: list[Table] = []
    kept = []
    for section in sections:
        parts: list[Part] = []
        for part in section.parts:
            if not (isinstance(part, Table) and part in seen):
                parts.append(part)
                seen += [part] if isinstance(part, Table) else []
        kept += [replace(section, parts=parts)] if parts else []
    return kept


def _claims(judged: Sequence[JudgedClaim]) -> list[Part]:
    """What the claims are, then those of each outcome, then how they were judged."""
    return [
        "A study trained five small residual networks on CIFAR-100 on a laptop's CPU. These are its sentences that can "
        "be checked, judged by the results of this page alone.",
        *(JudgedAlike(outcome, own) for outcome, own in claims_table.by_outcome(judged).items()),
        *claims_table.NOTES,
    ]


# ---------------------------------------------------------------------------------------------------------------------
# What was run


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


def for_page_and_phone(wide: Sequence[Figure], narrow: Sequence[Figure]) -> list[Part]:
    """Pictures of figures that were laid out twice."""
    return [
        Picture(figure.title, figure.caption, figure.inline(f"top{n}"), small.inline(f"small{n}"))
        for n, (figure, small) in enumerate(zip(wide, narrow, strict=True), 1)
    ]


def _pictures(samples: Samples, found: Sequence[Group]) -> tuple[list[Part], list[Part]]:
    """The two pictures that the page opens with, then the others, and a line for each that is left out."""
    try:
        require_matplotlib()
    except UserError as error:
        return [], [str(error)]
    top = headlines(found)
    opening = for_page_and_phone(top, headlines(found, NARROW))
    made, skipped = figures(samples)
    shown = {figure.name for figure in top}
    drawn: list[Part] = []
    left = PICTURES_BYTES
    rest = [figure for figure in made if figure.name not in shown]
    for number, figure in enumerate(rest):
        svg = figure.inline(f"figure{number}")
        left -= len(svg)
        if left < 0:
            skipped.append(
                f"{len(rest) - len(drawn)} more would make this page too large; `resnet-bench report --figures` writes "
                "all of them."
            )
            break
        drawn.append(Picture(figure.title, figure.caption, svg))
    return opening, [*drawn, *skipped]


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
        if isinstance(r, TRAINED):
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
    return lines + _other_measurements(file)


def _other_measurements(file: ResultFile) -> list[str]:
    """The lines of `scale`, of the explanation of a step and of the harness's cost."""
    lines = []
    if scaled := file.of_kind(ScaleResult):
        r = scaled[0]
        over = f"{r.varied}={','.join(str(value) for value in sorted({s.value for s in scaled}))}"
        networks, engines = (
            ",".join(dict.fromkeys(names)) for names in zip(*((s.architecture, s.engine) for s in scaled), strict=True)
        )
        varied = {"images": "train-images"}.get(r.varied, r.varied)
        each_its_own = {"pipeline"} if len({s.pipeline for s in scaled}) > 1 else set()
        options = _options(r, {"engine", "epochs", "schedule", "warmup-steps", "test-images", varied, *each_its_own})
        rounds = max(len(s.processes) // s.jobs for s in scaled)
        lines.append(
            f"resnet-bench scale --over {over} --architectures {shlex.quote(networks)} --engine {shlex.quote(engines)} "
            f"{options} --processes {rounds} --output {_quoted(file)}"
        )
    save = f"--benchmark-save={shlex.quote(_stem(file))}"
    if explained := list(dict.fromkeys(r.architecture for r in file.of_kind(ExplainResult))):
        lines.append(f"pytest benchmarks/test_explain.py --explain {shlex.quote(','.join(explained))} {save}")
    if costs := list(dict.fromkeys(r.architecture for r in file.of_kind(OverheadResult))):
        lines.append(f"pytest benchmarks/test_overhead.py --architectures {shlex.quote(','.join(costs))} {save}")
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


def _options(run: AccuracyResult | EpochTimeResult | ScaleResult, but: Collection[str] = ()) -> str:
    """The options of such a run, except those in `but`."""
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
    return " ".join(
        f"--{key} {shlex.quote(str(value))}" for key, value in values.items() if value is not None and key not in but
    )


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
