"""The command line: each command reads its options, calls one module and prints.

torch takes seconds to import. So commands import what they need only when they run, and `--help` answers at once.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from resnet_bench import __version__, progress
from resnet_bench.errors import UnfitError, UserError
from resnet_bench.options import RUN_OPTIONS
from resnet_bench.options import names as option_names
from resnet_bench.options import recipe as recipe_of
from resnet_bench.output import has_colours, readable, terminal_width, write_bytes
from resnet_bench.signals import BROKEN_PIPE, INTERRUPTED, TERMINATED, Terminated, terminable
from resnet_bench.wording import counted

if TYPE_CHECKING:
    from resnet_bench.render.table import Format
    from resnet_bench.results.samples import Samples
    from resnet_bench.study import planning
    from resnet_bench.study.folder import StudyFolder


class Results(click.Path):
    """A file or folder of results; a storage also as pytest-benchmark's `--benchmark-storage` takes it."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(value.removeprefix("file://") if isinstance(value, str) else value, param, ctx)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="resnet-bench")
def cli() -> None:
    """Measure and compare the training of five small residual networks on CPUs.

    The benchmarks themselves run with `pytest benchmarks`; the commands here train single networks, list and
    reconstruct the architectures, and turn saved JSON into tables.
    """


@cli.command()
@click.option(
    "--format",
    "output",
    type=click.Choice(["text", "markdown", "json"]),
    default="text",
    show_default=True,
    help="How to print the result; JSON lists every design.",
)
def reconstruct(output: Literal["text", "markdown", "json"]) -> None:
    """Search for the networks that fit the published parameter counts.

    The study prints no layer widths. This lists every design of a stated family whose counts round to the published
    ones, marks the canonical one, and says what decides between the rest: counts, epoch times or an assumption.
    """
    from resnet_bench import reconstruction
    from resnet_bench.render import reconstruction_tables

    with progress.task("searching for networks that fit"):
        found = reconstruction.reconstruct()
    click.echo(reconstruction_tables.render(found, output))


@cli.command("architectures")
@click.option("--format", "format_", type=click.Choice(["text", "markdown", "json"]), default="text", show_default=True)
def list_architectures(format_: Literal["text", "markdown", "json"]) -> None:
    """List the networks: exact and published parameter counts, multiply-accumulates, share of the FC layers.

    Counts are of the real modules, for 100 classes. Networks that are not the paper's run only on request: controls
    separate causes that the paper's variants mix, others have channel attention.
    """
    from resnet_bench.render import architecture_table

    click.echo(architecture_table.as_json() if format_ == "json" else architecture_table.table().render(format_))


def _options_named(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The options of a run with these names, in this order."""

    def add(command: Callable[..., None]) -> Callable[..., None]:
        for name in reversed(names):
            option = next(o for o in RUN_OPTIONS if o.name == name)
            command = click.option(
                option.flag,
                option.name,
                type=option.type,
                default=option.default,
                help=option.help,
                show_default=option.default is not None,
            )(command)
        return command

    return add


@cli.command()
@click.argument("architecture")
@_options_named(*(o.name for o in RUN_OPTIONS))
@click.option(
    "--output",
    type=click.Path(dir_okay=False, readable=False, path_type=Path),
    help="Write the result as JSON to this file, after every epoch.",
)
@click.option(
    "--checkpoint",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep a checkpoint in this folder, and go on from the one that is there.",
)
@click.option(
    "--checkpoint-minutes",
    type=click.FloatRange(min=0),
    default=5.0,
    show_default=True,
    help="Write the checkpoint this often, besides after every epoch.",
)
@click.option("--end-with-input", "ends_with_input", is_flag=True, hidden=True)  # a study's: see `signals`
@click.option("--images-sha256", hidden=True)  # a study's, whose images may change, or be others on another machine
@click.option("--code-sha256", hidden=True)  # likewise; several with commas between them
def train(
    architecture: str,
    output: Path | None,
    checkpoint: Path | None,
    checkpoint_minutes: float,
    ends_with_input: bool,
    images_sha256: str | None,
    code_sha256: str | None,
    **options: Any,
) -> None:
    """Train ARCHITECTURE and test it after every epoch; the defaults are the paper's recipe.

    \b
    resnet-bench train fc1 --dataset synthetic --train-images 2000 --test-images 500 --epochs 3
    resnet-bench train baseline --dataset cifar100 --checkpoint runs/baseline --output baseline.json

    A run with --checkpoint that was stopped, even by kill -9, goes on where it was when the same command is given
    again, and ends with the same weights to the last bit. Ctrl-C saves what there is and exits with status 130, SIGTERM
    likewise with 143.
    """
    from resnet_bench import architectures, engines, files, identity, machine, signals
    from resnet_bench.data import datasets, pipelines
    from resnet_bench.training.training import Training

    if ends_with_input:
        signals.end_with_input()
        machine.availability.take_interop_threads()
    chosen, recipe = architectures.get(architecture), recipe_of(options)
    if output is not None:
        files.require_writable(output, "--output")
    try:
        if code_sha256 and (code := identity.code()["sha256"]) not in code_sha256.split(","):
            raise UserError(f"the code of this suite is not that which the study runs with (SHA-256 {code[:12]}).")
        engines.get(options["engine"]).require()
        dataset = datasets.load(
            options["dataset"],
            train_images=options["train_images"],
            test_images=options["test_images"],
            seed=options["seed"],
        )
        if images_sha256 not in (None, dataset.sha256):
            raise UserError(f"the images of {options['dataset']} are not the study's (SHA-256 {dataset.sha256[:12]}).")
    except UserError as error:
        raise (UnfitError(str(error)) if images_sha256 or code_sha256 else error) from None
    training = Training(
        chosen,
        dataset,
        recipe,
        checkpoint=checkpoint,
        checkpoint_minutes=checkpoint_minutes,
        **{name: options[name] for name in ("engine", "pipeline", "seed", "workers", "threads")},
    )
    click.echo(
        f"{chosen.id}: {training.parameters:,} parameters, {training.engine.name} engine, "
        f"{training.pipeline} pipeline, {counted(training.threads, 'thread')}; {dataset.name}, "
        f"{len(dataset.train):,} training and {len(dataset.test):,} test "
        f"images, {dataset.num_classes} classes"
    )
    if fewer := pipelines.fewer_workers(training.pipeline, options["workers"]):
        click.echo(f"resnet-bench: {fewer}", err=True)
    if crowding := pipelines.crowded(training.pipeline, training.workers):
        click.echo(f"resnet-bench: warning: {crowding}", err=True)
    if training.resumed:
        click.echo(f"going on from the checkpoint at epoch {training.epoch}, step {training.step}")

    def write_result() -> None:
        if output is not None and training.results:
            files.write_json(output, training.result(identity.describe()).model_dump(mode="json"))

    try:
        with progress.task(f"starting {chosen.id}, compiling it where need be"):
            training.warm_up()
        for epoch in training.epochs():
            if output is not None and files.is_replaced(output):  # a pipe gets one result, at the end
                write_result()
            _say(
                f"epoch {epoch.epoch:>2}/{recipe.epochs}"
                f"  train {epoch.train_seconds:8.1f} s  loss {epoch.train_loss:.4f}"
                f"  test {epoch.eval_seconds:6.1f} s  loss {epoch.test_loss:.4f}  accuracy {epoch.test_accuracy:6.2%}"
                + (f"  lr {epoch.lr_start:.2e} to {epoch.lr_end:.2e}" if epoch.lr_start != epoch.lr_end else "")
            )
    finally:  # also after Ctrl-C or a diverged loss: the epochs so far are worth keeping
        write_result()


@cli.command()
@click.argument("files", nargs=-1, required=True, type=Results(), metavar="FILE.json...")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["text", "markdown", "latex", "csv"]),
    default="text",
    show_default=True,
    help="How to print the tables. csv: title and caption in a line, then heads and rows; a blank line between tables.",
)
@click.option(
    "--figures",
    "figures_folder",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help='Also write the figures there, as SVG and PNG. Needs: pip install "resnet-bench[figures]".',
)
@click.option(
    "--claims", "with_claims", is_flag=True, help="Also judge the study's claims by these results, with the evidence."
)
@click.option(
    "--html",
    "page_file",
    type=click.Path(dir_okay=False, readable=False, path_type=Path),
    metavar="FILE",
    help="Also write one self-contained page there: what was found, claims, then tables, figures, how to reproduce it.",
)
@click.option(
    "--compare-with",
    type=click.Path(path_type=Path),
    metavar="OTHER.json",
    help="Results of another machine or version, which the page compares with these. Needs --html.",
)
def report(
    files: tuple[Path, ...],
    format_: Format,
    figures_folder: Path | None,
    with_claims: bool,
    page_file: Path | None,
    compare_with: Path | None,
) -> None:
    """Print what was found in a few lines, then the paper's Table 1 and Table 2 and all others, from saved results.

    Takes what `pytest benchmarks --benchmark-save` and `train --output` wrote. Several files are put together: runs
    of one network with different seeds give a mean and its interval; each machine and data set has its own summary.
    Published values stand beside the measured ones in columns of their own, and never fill a gap.

    \b
    resnet-bench report .benchmarks/*/0001_quick.json
    resnet-bench report seed0.json seed1.json seed2.json --format markdown > results.md
    resnet-bench report results.json --figures figures
    resnet-bench report results.json --claims --html report.html
    """
    from resnet_bench.files import atomic_write, make_folder, require_writable
    from resnet_bench.render import drawing
    from resnet_bench.render.paper_tables import tables
    from resnet_bench.results.samples import read_one

    if compare_with is not None and page_file is None:
        raise UserError("--compare-with is for the page; give --html FILE too, or use resnet-bench compare.")
    read = _read(files)
    other = read_one(compare_with) if compare_with is not None else None
    _require_no_source("--html", page_file, *filter(None, [read, other]))
    if page_file is not None:
        require_writable(page_file, "--html")
    if figures_folder is not None:
        drawing.require_matplotlib()
        make_folder(figures_folder, "--figures")
    with progress.task("making the tables"):
        parts = [_first_screen(read)] if format_ == "text" else []
        parts += [table.render(format_) for table in tables(read)]
    if with_claims:
        from resnet_bench.analysis import claims
        from resnet_bench.render import claims_table

        with progress.task("judging the claims"):
            parts.append(claims_table.render(claims.judge(read), format_))
    click.echo("\n\n".join(parts))
    if figures_folder is not None:
        from resnet_bench.render import figures

        with progress.task("drawing the figures"):
            written, skipped = figures.write(read, figures_folder)
        for line in (*skipped, f"{len(written)} files written to {figures_folder}."):
            click.echo(line, err=True)  # stdout has the tables and nothing else
    if page_file is not None:
        from resnet_bench.render import page

        with progress.task("making the page"):
            text = page.report(read, other)
        with atomic_write(page_file) as file:
            file.write(text)
        click.echo(f"The page is written to {page_file}.", err=True)


def _names(flag: str, text: str | None) -> tuple[str, ...]:
    """The names in the value of an option; none where it is not given.

    Raises:
        UserError: for a value without a name.
    """
    names = option_names(text or "")
    if text is not None and not names:
        raise UserError(f"{flag} names none; give one or leave it out.")
    return names


def _read(files: Iterable[Path]) -> Samples:
    """What the files and folders hold; it says which files in a folder hold no results."""
    from resnet_bench.results.samples import read_all

    found = read_all(files)
    if passed := found.passed_over:
        more = f" and {len(passed) - 3} more" if len(passed) > 3 else ""
        names = ", ".join(str(path) for path in passed[:3])
        click.echo(f"resnet-bench: {counted(len(passed), 'file')} without results: {names}{more}", err=True)
    return found


def _require_no_source(option: str, target: Path | None, *read: Samples) -> None:
    """Refuse to write over one of the files that results were read from."""
    for source in (file.path for samples in read for file in samples.files):
        inside = source.is_dir() and target is not None and target.resolve().is_relative_to(source.resolve())
        if target is not None and target.is_file() and (inside or target.samefile(source)):
            raise UserError(f"{option} {target} would replace the results in it; give another file.")


def _in_any_encoding(page: str) -> str:
    """A page in ASCII: it declares UTF-8, but standard output may be in another encoding."""
    return page.encode("ascii", "xmlcharrefreplace").decode()


def _first_screen(read: Samples) -> str:
    """The answer first, as wide as the terminal is; one file is also held against the last one saved beside it."""
    from resnet_bench.analysis.earlier import last_alike, saved_before
    from resnet_bench.render import first_screen

    path = read.files[0].path
    single = len(read.files) == 1
    earlier = last_alike(read, saved_before(path.parent, path.name)) if single else None
    commands = first_screen.next_commands(path, earlier, [run.result for run in read.runs]) if single else []
    found = first_screen.lines(read, terminal_width(), earlier=earlier, commands=commands)
    if not has_colours(sys.stdout):
        return "\n".join(line.text for line in found)
    return "\n".join(
        click.style(line.text, fg=None if line.style in ("plain", "bold") else line.style, bold=line.style == "bold")
        for line in found
    )


@cli.command()
@click.argument("files", nargs=-1, required=True, type=Results(), metavar="FILE.json...")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["csv", "parquet", "json", "github-action-benchmark", "bencher", "pyperf"]),
    default="csv",
    show_default=True,
    help='json: a list of rows. parquet needs: pip install "resnet-bench[parquet]". The last three are for the tools '
    "of these names.",
)
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write to this file.  [default: standard output]"
)
def export(
    files: tuple[Path, ...],
    format_: Literal["csv", "parquet", "json", "github-action-benchmark", "bencher", "pyperf"],
    output: Path | None,
) -> None:
    """Write the measurements of saved results as one table, or as another tool for benchmarks reads them.

    The table has one row a block, an epoch, a count, and each measurement once, however many of the files hold it.
    docs/schema.md has the columns with their units; in Python, resnet_bench.load(FILES) gives the same as a pandas data
    frame.

    github-action-benchmark (its tool customSmallerIsBetter) and bencher (BMF, its adapter json) get each network's
    epoch time, with the 95 % interval where three processes or more were measured, and peak memory, bencher the
    accuracy too; pyperf gets the raw times, a run for each process. What is left out is said on standard error.

    \b
    resnet-bench export .benchmarks/*/*.json > measurements.csv
    resnet-bench export runs/*.json --format parquet --output runs.parquet
    resnet-bench export results.json --format bencher --output bmf.json
    """
    from resnet_bench.files import atomic_write, require_writable

    if output is not None:
        require_writable(output, "--output")
    if format_ == "parquet" and output is None and sys.stdout.isatty():
        raise UserError("Parquet is no text for a terminal; give --output FILE.")
    samples = _read(files)
    _require_no_source("--output", output, samples)
    notes: list[str] = []
    if format_ == "csv" or format_ == "parquet" or format_ == "json":
        from resnet_bench.results import frame

        data = frame.serialized(frame.data_frame(samples), format_)
    else:
        from resnet_bench.render import exchange

        data, notes = exchange.exported(samples, format_)
    if output is None:
        write_bytes(data)
    else:
        with atomic_write(output, "wb") as file:
            file.write(data)
    for note in notes:
        click.echo(f"resnet-bench: note: {note}", err=True)


@cli.command()
@click.argument("base", type=Results(), metavar="BASE.json")
@click.argument("others", nargs=-1, required=True, type=Results(), metavar="OTHER.json...")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["text", "markdown", "json", "html"]),
    default="text",
    show_default=True,
    help="How to print the comparison; html is one self-contained page.",
)
@click.option(
    "--fail-if",
    "limits",
    multiple=True,
    metavar="METRIC:LIMIT",
    help="Exit 1 if a network is significantly worse than BASE by more than this: epoch_seconds:5%, accuracy:1 "
    "(points), conv5x5.epoch_seconds:3%. Repeatable; a network's own limit replaces the general one.",
)
@click.option("--allow-missing", is_flag=True, help="A network that one file lacks does not fail --fail-if.")
@click.option(
    "--force", is_flag=True, help="Compare other data, recipes or mixed runs too, with the reason in the table."
)
@click.pass_context
def compare(
    context: click.Context,
    base: Path,
    others: tuple[Path, ...],
    format_: Literal["text", "markdown", "json", "html"],
    limits: tuple[str, ...],
    allow_missing: bool,
    force: bool,
) -> None:
    """Compare saved results with BASE: epoch times as ratios with intervals, accuracy, and what differs in the set-up.

    A ratio is «faster» or «slower» only where its 95 % interval over processes leaves out 1, and «cannot tell» with
    fewer than three processes. Intervals of files measured one after the other are wider by what the calibrations say
    that the machine drifted; resnet-bench duel measures in turn, and its files are compared process by process. On
    another machine the verdict is on each network's ratio to the baseline within its machine; the measured
    calibrations then say which part of the time follows from the hardware. Runs on other data or with another recipe
    are refused. Exit status: 0; 1 where --fail-if fails; 2 for input that cannot be compared.

    \b
    resnet-bench compare before.json after.json
    resnet-bench compare main.json branch.json --fail-if epoch_seconds:5% --fail-if accuracy:1
    """
    from resnet_bench.analysis import gate
    from resnet_bench.analysis.comparison import compare as compare_files
    from resnet_bench.render import comparison_tables, gate_table, page
    from resnet_bench.results.samples import read_one

    thresholds = [gate.Threshold.parse(limit) for limit in limits]
    read = read_one(base)
    with progress.task("comparing"):
        comparisons = [compare_files(read, read_one(other), force=force) for other in others]
    checks = [gate.check(c, thresholds) for c in comparisons]
    if format_ == "json":
        data = [
            {**comparison_tables.as_dict(c), "checks": gate_table.as_dicts(found)}
            for c, found in zip(comparisons, checks, strict=True)
        ]
        text = json.dumps({"comparisons": data}, indent=2, allow_nan=False)
    else:
        tables = []
        for c, found in zip(comparisons, checks, strict=True):
            tables += comparison_tables.tables(c)
            tables += [gate_table.thresholds(found, allow_missing=allow_missing)] if found else []
        if format_ == "html":
            text = _in_any_encoding(page.document("Comparison", [page.Section("Comparison", tables)]))
        else:
            text = "\n\n".join(table.render(format_) for table in tables)
    click.echo(text)
    if any(gate.failed(found, allow_missing=allow_missing) for found in checks):
        context.exit(1)


@cli.command()
@click.argument("files", nargs=-1, type=Results(), metavar="[STORAGE|FILE|FOLDER]...")
@click.option("--network", "networks", metavar="NAME,NAME…", help="Only these networks.")
@click.option("--engine", "engines", metavar="NAME,NAME…", help="Only these engines.")
@click.option("--with-doubtful", is_flag=True, help="Judge sessions that have warnings or were cut off too.")
@click.option("--format", "format_", type=click.Choice(["text", "html", "json"]), default="text", show_default=True)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, readable=False, path_type=Path),
    metavar="FILE",
    help="Write to this file.  [default: standard output]",
)
@click.option(
    "--fail-on-step",
    is_flag=True,
    help="Exit 1 if a line has become significantly slower and is not back.",
)
@click.option(
    "--accept",
    metavar="DATE|COMMIT",
    help="Steps to slower up to the end of this day (UTC), such as 2027-01-04, or up to the first session of this "
    "commit were looked at: they are listed as accepted and no regressions.",
)
@click.pass_context
def history(
    context: click.Context,
    files: tuple[Path, ...],
    networks: str | None,
    engines: str | None,
    with_doubtful: bool,
    format_: Literal["text", "html", "json"],
    output: Path | None,
    fail_on_step: bool,
    accept: str | None,
) -> None:
    """Show epoch times over all saved sessions: their course, their steps, and what changed at the same time.

    Without arguments, of the runs in .benchmarks. A line joins what may be compared: one kind of machine, data set,
    network, engine and setting. Each session is one value, the mean of its processes; a step is a level of at least
    three sessions that differs from the one before by more than sessions of the same code do. So it takes six sessions
    to tell, and the newest ones tell a step from the third on. Accuracy is no part of it.

    \b
    resnet-bench history
    resnet-bench history .benchmarks laptop/*.json --network fc3 --format html --output history.html
    resnet-bench history --fail-on-step
    resnet-bench history --fail-on-step --accept 2027-01-04

    --fail-on-step: a line fails if a step made the epoch longer, with a p-value that is significant at 5 % for all
    lines that can be judged together (Holm). It fails again until the time is back, which is where the interval of the
    newest level over the one before the step includes 1, or until --accept names the date or commit that the step is
    listed with; steps after it still fail. Lines that cannot be judged do not fail. Exit status: 0; 1 where a line
    fails; 2 for what cannot be read, and for more lines than can be judged together.
    """
    from resnet_bench.analysis.history import MOST_TOGETHER
    from resnet_bench.analysis.history import history as of_samples
    from resnet_bench.files import atomic_write, require_writable
    from resnet_bench.folders import STORAGE
    from resnet_bench.render import history_page, history_tables

    if not files and not STORAGE.is_dir():
        raise UserError(
            f"There is no {STORAGE} here; save runs with pytest benchmarks --benchmark-save=NAME, or give files."
        )
    if output is not None:
        require_writable(output, "--output")
    read = _read(files or (STORAGE,))
    _require_no_source("--output", output, read)
    found = of_samples(
        read,
        _names("--network", networks) or None,
        _names("--engine", engines) or None,
        with_doubtful,
        accept,
    )
    with progress.task("looking for steps"):
        if format_ == "json":
            text = json.dumps(history_tables.as_dict(found), indent=2, allow_nan=False)
        elif format_ == "html":
            text = history_page.page(found)
        else:
            text = history_tables.render(found)
    if output is not None:
        with atomic_write(output) as file:
            file.write(f"{text}\n")
    else:
        click.echo(_in_any_encoding(text) if format_ == "html" else text)
    if fail_on_step and len(found.judged) > MOST_TOGETHER:
        raise UserError(history_tables.too_many_text(found))
    if fail_on_step and found.regressions:
        context.exit(1)


@cli.command("machine")
@click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=None,
    help="Threads of an operation.  [default: torch's choice, one for each core]",
)
@click.option(
    "--check",
    is_flag=True,
    help="Only say what makes results here doubtful, and what changes it.",
)
def measure_machine(format_: str, threads: int | None, check: bool) -> None:
    """Describe this machine and measure, in half a minute, its memory bandwidth, its float32 arithmetic rate and what
    denormal numbers cost it.

    Bandwidth and rate at the sizes that the networks have, with the spread of the measurement, and what follows from
    them: the least time that a training step can take here. Denormal numbers in an operation and in a step of Adam,
    which meets them once units of a large hidden layer are idle for long. Measure while nothing else runs.

    With --check it measures nothing, but looks for two seconds at turbo, SMT, clock governor, ASLR, huge pages,
    container limits, other processes and stolen time. That is advice: the exit status is 0 whatever it finds.
    """
    if check:
        if threads is not None:
            raise UserError("--check measures nothing that uses threads; leave out --threads.")
        click.echo(_checked_machine(format_))
        return
    import torch

    from resnet_bench import machine
    from resnet_bench.render import machine_tables

    if threads is not None:
        torch.set_num_threads(threads)  # for the description too
    if busy := machine.busy_reason(machine.load_average()):
        click.echo(f"resnet-bench: warning: {busy}", err=True)
    progress.plan({"measuring the machine": 6.0, "measuring denormal numbers": 20.0})
    try:
        measured = machine.describe(), machine.calibrate(), machine.measure_denormals()
    finally:
        progress.plan({})
    if format_ == "json":
        click.echo(machine_tables.as_json(*measured))
    else:
        click.echo("\n\n".join(table.render("text") for table in machine_tables.tables(*measured)))


def _checked_machine(format_: str) -> str:
    """What makes results here doubtful. Imports no torch."""
    from resnet_bench.machine import advice
    from resnet_bench.render import advice_table

    findings = advice.settings() + advice.load()
    if format_ == "json":
        return json.dumps({"check": advice.as_dicts(findings), "summary": advice_table.summary(findings)}, indent=2)
    return advice_table.table(findings).render("text")


@cli.command("explain")
@click.argument("architecture")
@_options_named("dataset", "train_images", "batch_size", "lr", "seed", "workers", "threads")
@click.option(
    "--time-limit",
    type=click.FloatRange(min=0, min_open=True),
    default=180.0,
    show_default=True,
    help="Seconds for all that is measured; fewer give fewer and shorter blocks.",
)
@click.option("--format", "format_", type=click.Choice(["text", "markdown", "json"]), default="text", show_default=True)
def explain_step(
    architecture: str, time_limit: float, format_: Literal["text", "markdown", "json"], **options: Any
) -> None:
    """Explain where the time of a training step of ARCHITECTURE goes.

    \b
    resnet-bench explain baseline --dataset synthetic --train-images 5000

    Takes the step from the paper's plain PyTorch to the engine fast, one change at a time, beside a second network,
    and says which change dominates and how much of the difference between the two networks is their architecture. Also
    which moments of Adam are denormal numbers early and late in the training, and how much longer a step takes by them.
    """
    from resnet_bench import architectures, machine
    from resnet_bench.data import datasets, pipelines
    from resnet_bench.engines import fast
    from resnet_bench.measure import ablation
    from resnet_bench.recipe import Recipe
    from resnet_bench.render import ablation_table
    from resnet_bench.render.captions import machine_text

    chosen = architectures.get(architecture)
    fast.Engine.require()
    recipe = Recipe(epochs=1, batch_size=options["batch_size"], lr=options["lr"])
    dataset = datasets.load(options["dataset"], train_images=options["train_images"], seed=options["seed"])
    if fewer := pipelines.fewer_workers("loader", options["workers"]):
        click.echo(f"resnet-bench: {fewer}", err=True)
    result = ablation.explain(
        chosen,
        dataset,
        recipe,
        time_limit=time_limit,
        workers=pipelines.chosen_workers(options["workers"]),
        **{name: options[name] for name in ("seed", "threads")},
    )
    if format_ == "json":
        click.echo(json.dumps(result.model_dump(mode="json"), indent=2))
    else:
        tables = ablation_table.tables(result, machine_text(machine.describe()))
        click.echo("\n\n".join(table.render(format_) for table in tables))


@cli.command("scale")
@click.option(
    "--over",
    "over_text",
    required=True,
    metavar="NAME=V1,V2…",
    help="What varies: threads, batch-size, images (of an epoch), classes (only synthetic images), or processes (side "
    "by side on this machine, one thread each unless --threads is given).",
)
@click.option("--architectures", metavar="NAME,NAME…", help="Networks.  [default: the study's five]")
@click.option(
    "--engine",
    "engine_names",
    default="reference,fast",
    show_default=True,
    metavar="NAME,NAME…",
    help="Engines. fast compiles for each value, which may take a minute; what it compiled is kept for the next time.",
)
@_options_named("dataset")
@click.option(
    "--train-images", type=int, help="Images of an epoch, stratified by class.  [default: all, but at most 10,000]"
)
@click.option("--batch-size", type=int, help="Images in a batch.  [default: 4]")
@_options_named("lr", "seed", "workers", "threads", "pipeline")
@click.option(
    "--processes",
    type=int,
    default=3,
    show_default=True,
    help="Rounds of fresh processes, one for each value. Fewer than 3 give no interval.",
)
@click.option(
    "--time-limit",
    type=float,
    default=240.0,
    show_default=True,
    help="Seconds for all rounds; decides how many blocks are timed. Each value has one block at least, whatever that "
    "takes. What comes before, compiling and the states from which steps are timed, is not counted.",
)
@click.option(
    "--output",
    required=True,
    type=click.Path(dir_okay=False, readable=False, path_type=Path),
    metavar="FILE.json",
    help="Write the results there, after every round.",
)
@click.option("--format", "format_", type=click.Choice(["text", "markdown"]), default="text", show_default=True)
def measure_scale(
    over_text: str,
    architectures: str | None,
    engine_names: str,
    processes: int,
    time_limit: float,
    output: Path,
    format_: Literal["text", "markdown"],
    **options: Any,
) -> None:
    """Measure how the time of a step grows with threads, batch size, images, classes, or processes beside it.

    \b
    resnet-bench scale --over batch-size=1,4,16,64,256 --architectures baseline,fc1 --output batch-size.json
    resnet-bench scale --over threads=1,2 --dataset cifar100 --output threads.json
    resnet-bench scale --over processes=1,2 --engine fast --output processes.json
    resnet-bench report threads.json processes.json --figures figures

    Each value has fresh processes of its own. In every round the values come in an order drawn anew, and networks and
    engines take turns, block by block, so that a drift of the machine hits all alike. What is timed are early steps of
    a training, with their data. Where fast leaves idle units out, a network is first trained for 512 steps, once for
    each value, until nearly all units that die are dead; all engines begin there. It says up to which value fast is
    faster than reference, and, with threads or processes and all five networks, what a study costs here.
    """
    from resnet_bench.architectures import ARCHITECTURES
    from resnet_bench.files import require_writable
    from resnet_bench.measure.process import Case
    from resnet_bench.measure.processes import Plan
    from resnet_bench.render import scale_tables
    from resnet_bench.results.samples import read_one
    from resnet_bench.scale import plan, running

    over, measured = plan.Over.parse(over_text), Plan(processes=processes, time_limit=time_limit)
    networks = _names("--architectures", architectures) or tuple(ARCHITECTURES)
    engines = _names("--engine", engine_names)
    require_writable(output, "--output")
    cases = tuple(Case(architecture=a, engine=e, mode="sampled") for a in networks for e in engines)
    settings = plan.Settings(over, cases, options, measured)

    def say(line: str) -> None:
        with progress.paused():
            click.echo(f"resnet-bench: warning: {line}", err=True)

    running.run(settings, output, say)
    click.echo("\n\n".join(table.render(format_) for table in scale_tables.tables(read_one(output))))
    click.echo(f"Saved: {output}; figures and all else: resnet-bench report {output} --figures FOLDER", err=True)


def _options_of_the_profile(command: Callable[..., None]) -> Callable[..., None]:
    """The options of a run, where a profile has values for those that are not given."""
    for option in reversed(RUN_OPTIONS):
        default = "" if option.default is None else f"  [default: the profile's, else {option.default}]"
        command = click.option(option.flag, option.name, type=option.type, help=option.help + default)(command)
    return command


@cli.command()
@click.option(
    "--arm",
    "texts",
    multiple=True,
    metavar="NAME:ITEM,ITEM…",
    help="A configuration; two to four of them. An item is a requirement (torch==2.12), git=REV (a revision of this "
    "suite), python=PATH (an interpreter that has the packages), env:NAME=VALUE, or an option of train (threads=1); "
    "a comma in a value is written \\,. Without items: this environment as it is.",
)
@click.option("--architectures", metavar="NAME,NAME…", help="Networks.  [default: the study's five]")
@click.option(
    "--profile",
    type=click.Choice(["quick", "standard", "paper"]),
    default="quick",
    show_default=True,
    help="Sizes, as in `pytest benchmarks`.",
)
@_options_of_the_profile
@click.option(
    "--processes",
    type=int,
    default=8,
    show_default=True,
    help="Rounds: fresh processes of each arm. Fewer than 3 give no interval.",
)
@click.option(
    "--time-limit",
    type=float,
    help="Seconds for all processes of one arm; decides how many blocks they time.  [default: the profile's]",
)
@click.option(
    "--states",
    type=click.Choice(["trained", "aged"]),
    help="How later points of the training are reached, once, before anything is timed.  [default: the profile's]",
)
@click.option(
    "--accuracy-epochs",
    type=int,
    default=0,
    show_default=True,
    help="Also train each network so long with each arm, one seed a round, and tell whether accuracies are equivalent.",
)
@click.option(
    "--fail-if",
    "limits",
    multiple=True,
    metavar="METRIC:LIMIT",
    help="Exit 1 if an arm is significantly worse than the first by more than this, as in compare: epoch_seconds:5%, "
    "conv5x5.epoch_seconds:3%, accuracy:1 (points).",
)
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the journal and the results.  [default: a new one in .benchmarks, or the one that the same "
    "command has not finished]",
)
@click.option("--dry-run", is_flag=True, help="Make the environments, run the pilots and print the plan; no more.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["text", "markdown", "json"]),
    default="text",
    show_default=True,
    help="How to print the result.",
)
@click.pass_context
def duel(
    context: click.Context,
    /,
    texts: tuple[str, ...],
    profile: str,
    limits: tuple[str, ...],
    output: Path | None,
    dry_run: bool,
    format_: Literal["text", "markdown", "json"],
    **options: Any,
) -> None:
    """Measure two to four configurations against each other, in alternating processes on this machine.

    \b
    resnet-bench duel --arm old:torch==2.12 --arm new:torch==2.15
    resnet-bench duel --arm main:git=main --arm mine:git=HEAD --fail-if epoch_seconds:5%
    resnet-bench duel --arm glibc: --arm jemalloc:env:LD_PRELOAD=/usr/lib/libjemalloc.so.2 --arm one:threads=1

    In each round every arm has one fresh process. They take turns, block by block, in an order drawn anew, so that
    drift hits all alike; ratios are paired by round and against the first arm. The plan comes first, with the
    estimated duration. Environments are made with uv, and kept. A duel that was stopped, even by kill -9, goes on
    when the same command is given again. Each arm's results are saved as an ordinary file for report and compare.

    Exit status: 0; 1 where --fail-if fails; 2 for bad input or where an arm failed (the others' results are kept); 130
    after Ctrl-C.
    """
    from resnet_bench.analysis import duel as analysis
    from resnet_bench.analysis import gate
    from resnet_bench.duel import arms, running
    from resnet_bench.render import duel_tables, gate_table

    thresholds = [gate.Threshold.parse(limit) for limit in limits]
    parsed = arms.parse_all(texts)
    settings = _duel_settings(profile, options)
    for threshold in thresholds:
        if threshold.architecture not in (None, *settings.architectures):
            raise UserError(
                f"--fail-if {threshold} is for a network that this duel does not measure; name one of "
                f"{', '.join(settings.architectures)}."
            )

    def say(line: str) -> None:
        with progress.paused():
            click.echo(line, err=True)  # stdout has the result and nothing else

    outcome = running.run(parsed, settings, output, say, plan_only=dry_run)
    if dry_run:
        click.echo("\n".join(outcome.plan))
        return
    found = analysis.analyse(outcome.files) if len(outcome.files) > 1 else None
    checks = [gate.check(o.comparison, thresholds) for o in found.opponents] if found else []
    if found and format_ == "json":
        data = duel_tables.as_dict(found)
        for opponent, own in zip(data["arms"], checks, strict=True):
            opponent["checks"] = gate_table.as_dicts(own)
        data |= {"files": {name: str(path) for name, path in outcome.files.items()}, "failed": outcome.failed}
        click.echo(json.dumps(data, indent=2, allow_nan=False))
    elif found and format_ != "json":
        parts = [duel_tables.render(found, format_)]
        parts += [gate_table.thresholds(own, allow_missing=False).render(format_) for own in checks if own]
        click.echo("\n\n".join(parts))
    if outcome.files:
        say(f"Saved: {', '.join(map(str, outcome.files.values()))}.")
    if outcome.interrupted:
        say(f"resnet-bench: interrupted; {outcome.kept}, and the same command goes on.")
        context.exit(130)
    if outcome.failed:
        for name, reason in outcome.failed.items():
            say(f"resnet-bench: error: arm {name} failed: {reason}.")
        context.exit(2)
    if any(gate.failed(own, allow_missing=False) for own in checks):
        context.exit(1)


def _duel_settings(profile_name: str, options: dict[str, Any]) -> Any:
    """What a duel measures: the given options, and the profile's values for the others."""
    from resnet_bench import architectures, engines
    from resnet_bench.data import pipelines
    from resnet_bench.data.sources import SPLITS
    from resnet_bench.duel.plan import Settings
    from resnet_bench.pytest_options import PROFILES

    profile = PROFILES[profile_name]
    given = {o.name: options[o.name] for o in RUN_OPTIONS if options[o.name] is not None}
    values = {o.name: o.default for o in RUN_OPTIONS} | {k: v for k, v in profile.items() if k in options} | given
    if "," in values["engine"]:
        raise UserError("--engine takes one engine here; for two, make arms of them: --arm a:engine=reference.")
    if "engine" not in given:
        try:
            engines.get(values["engine"]).require()
        except UserError as error:
            click.echo(f"engine reference instead of {values['engine']}. {error}", err=True)
            values["engine"] = "reference"
    if fewer := pipelines.fewer_workers(
        values["pipeline"] or engines.get(values["engine"]).pipeline, values["workers"]
    ):
        click.echo(f"resnet-bench: {fewer}", err=True)
    values["workers"] = pipelines.chosen_workers(values["workers"])
    asked = options["architectures"]
    networks = option_names(asked) if asked else tuple(architectures.ARCHITECTURES)
    for name in networks:
        architectures.get(name)
    return Settings(
        architectures=networks,
        values={o.name: values[o.name] for o in RUN_OPTIONS},
        at_most=tuple(s for s in SPLITS if f"{s}_images" not in given),
        processes=options["processes"],
        time_limit=profile["time_limit"] if options["time_limit"] is None else options["time_limit"],
        states=options["states"] or profile["states"],
        accuracy_epochs=options["accuracy_epochs"],
    )


# ---------------------------------------------------------------------------------------------------------------------
# A study: many trainings


@cli.group(invoke_without_command=True)
@click.option(
    "--output", type=click.Path(file_okay=False, path_type=Path), metavar="DIR", help="The folder of the study."
)
@click.option("--architectures", help="Networks, separated by commas.  [default: the paper's five]")
@click.option("--seeds", default="0-4", show_default=True, help="Numbers and ranges.")
@click.option("--engine", "engines", default="fast", show_default=True, help="Engines, separated by commas.")
@click.option("--vary", multiple=True, metavar="NAME=V1,V2", help="Train with each value of this option. Repeatable.")
@click.option(
    "--profile",
    type=click.Choice(["quick", "standard", "paper"]),
    default="paper",
    show_default=True,
    help="Epochs and numbers of images, as in pytest benchmarks.",
)
@click.option(
    "--jobs",
    metavar="N|auto",
    help="Trainings side by side; auto measures how many, with how many threads, are best here.  "
    "[default: as the study was run last, else 1]",
)
@_options_named(*(o.name for o in RUN_OPTIONS if o.name not in ("engine", "seed")))
@click.option(
    "--cluster",
    metavar="ADDRESS",
    help="Train on the workers of a Dask scheduler: its address, such as tcp://10.0.0.1:8786, or its scheduler file. "
    "Each trains one cell at a time, unless it has the resource cells=N.",
)
@click.option("--checkpoint-minutes", type=click.FloatRange(min=0), default=5.0, show_default=True, help="As in train.")
@click.option("--allow-other-code", is_flag=True, help="Go on with another version of the suite, and mark its cells.")
@click.option("--dry-run", is_flag=True, help="Print cells, time on this machine and disk use; train nothing.")
@click.pass_context
def study(context: click.Context, /, **options: Any) -> None:
    """Train every network with every seed, through interruptions: a cell is one training.

    \b
    resnet-bench study --dataset cifar100 --seeds 0-4 --jobs auto --output runs/study
    resnet-bench study --output runs/study          # the same again goes on; DIR alone is enough
    resnet-bench study status runs/study
    resnet-bench report runs/study

    Finished cells stay; interrupted ones go on from their checkpoint and end with the same weights to the last bit.
    Exit status: 0 where all cells are finished; 1 where some failed, which are named; 2 for what you can mend; 130
    after Ctrl-C and 143 after SIGTERM, when every training has saved what it had. A second one does not wait for that.
    """
    if context.invoked_subcommand is not None:
        return
    given = {n for n in options if context.get_parameter_source(n) is click.core.ParameterSource.COMMANDLINE}
    with contextlib.nullcontext() if options["dry_run"] else _interruption_says_how_to_go_on():
        _study(context, options, given)


def _study(context: click.Context, options: dict[str, Any], given: set[str]) -> None:
    """See `study`. `given` are the options on the command line."""
    from resnet_bench.study import cluster, running
    from resnet_bench.study.folder import StudyFolder

    if options["output"] is None:
        raise UserError("Nobody said where the study is to be kept; give --output DIR.")
    asked, folder = _asked(options, given), options["output"]
    if options["dry_run"]:
        if options["cluster"]:
            raise UserError("--dry-run estimates times on this machine, not on a cluster; leave --cluster out.")
        click.echo(_dry_run(asked, folder, options["allow_other_code"]))
        return
    allow = options["allow_other_code"]
    if options["cluster"] and "jobs" in given:
        raise UserError("--jobs is for this machine; how many cells a worker of a cluster trains, it says itself.")
    with contextlib.ExitStack() as stack:
        workers = None
        if options["cluster"]:
            workers = stack.enter_context(contextlib.closing(cluster.Workers(options["cluster"], _say)))
        found = stack.enter_context(StudyFolder.writing(folder, _say))
        if workers and found is None and asked.values["threads"] is None:
            asked = asked.with_threads(cluster.threads(workers))
        study, jobs = _prepared(found, asked, folder, allow, options["cluster"])
        place: running.Place
        if workers:
            place = cluster.Cluster(study, workers, options["checkpoint_minutes"], _say, allow_other_code=allow)
        else:
            place = running.Local(study, jobs, options["checkpoint_minutes"])
        failed = running.run(study, place, _say)
    for ended in failed:
        click.echo(f"resnet-bench: {ended.cell.name} {ended.reason}", err=True)
    if failed:
        rest = f"{len(failed)} of {len(study.plan.cells)} cells"
        click.echo(f"resnet-bench: not finished: {rest}; the same command tries again.", err=True)
        context.exit(1)
    click.echo(f"All {len(study.plan.cells)} cells are finished; the tables: resnet-bench report {folder}")


@contextlib.contextmanager
def _interruption_says_how_to_go_on() -> Iterator[None]:
    """Have Ctrl-C and SIGTERM say what to do next, also before and after `running.run`, which says more."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise type(error)(str(error) or "run the same command again to go on") from None


def _asked(options: dict[str, Any], given: set[str]) -> planning.Asked:
    """What the options of `study` ask for; `UserError` for a value that they do not take."""
    from resnet_bench.architectures import ARCHITECTURES
    from resnet_bench.pytest_options import PROFILES
    from resnet_bench.study import cells, planning

    profile = {k: v for k, v in PROFILES[options["profile"]].items() if k in options and k not in given}
    values = {o.name: options[o.name] for o in RUN_OPTIONS if o.name in options} | profile
    if "profile" in given:  # also what it leaves at the paper's value
        given = given | {"epochs", "train_images", "test_images"}
    values |= {
        "architectures": _names("--architectures", options["architectures"]) or tuple(ARCHITECTURES),
        "engines": _names("--engine", options["engines"]),
        "seeds": cells.numbers(options["seeds"]),
        "varied": cells.varied(options["vary"]),
    }
    if "vary" in given:
        given = given | {"varied"}
    jobs = options["jobs"]
    if jobs not in (None, "auto") and not (jobs.isdecimal() and int(jobs)):
        raise UserError(f"--jobs is {jobs!r}; give a number from 1 on, or auto.")
    return planning.Asked(values, frozenset(given & set(values)), int(jobs) if jobs and jobs != "auto" else jobs)


def _prepared(
    found: StudyFolder | None, asked: planning.Asked, folder: Path, allow: bool, address: str | None
) -> tuple[StudyFolder, int]:
    """The study in a folder that is locked, ready to run, and how many trainings run side by side on this machine."""
    from resnet_bench import engines
    from resnet_bench.data import pipelines
    from resnet_bench.render import study_tables
    from resnet_bench.study import planning
    from resnet_bench.study.folder import LocalSettings, StudyFolder

    for damage in found.damages if found else ():
        _say(f"{damage} Its copy takes its place.")
    plan, spec = planning.resumed(found, asked, allow) if found else planning.new_plan(asked)
    wanted = planning.jobs(found, asked)
    plan, jobs, measured = planning.packed(plan, spec, wanted if address is None else 1, asked, _say, new=found is None)
    if measured:
        _say(study_tables.packings(measured, jobs, plan.threads).render("text"))
    if found is None:
        loading = (asked.values["pipeline"] or engines.get(e).pipeline for e in plan.engines)
        if "loader" in loading and (fewer := pipelines.fewer_workers("loader", asked.values["workers"])):
            _say(fewer)
        found = StudyFolder.create(folder, plan)
    elif found.damages or plan != found.plan:
        found.write(plan)
    found.keep_local(LocalSettings(dataset=spec, jobs=wanted, cluster=address))
    return found, jobs


def _dry_run(asked: planning.Asked, folder: Path, allow: bool) -> str:
    """The tables of `study --dry-run`. The folder stays as it is, or is not made."""
    from resnet_bench.render import study_tables
    from resnet_bench.results.manifest import is_study
    from resnet_bench.study import packing, planning
    from resnet_bench.study.folder import StudyFolder

    found = StudyFolder.open(folder) if is_study(folder) else None
    if found is None and folder.is_dir():
        StudyFolder.require_no_other_files(folder)
    plan, spec = planning.resumed(found, asked, allow) if found else planning.new_plan(asked)
    plan, jobs, measured = planning.packed(plan, spec, planning.jobs(found, asked), asked, _say, new=found is None)
    chosen = packing.measure(plan, spec, jobs, plan.threads, _say)
    tables = [study_tables.packings(measured, jobs, plan.threads)] if measured else []
    tables.append(study_tables.plan(plan, chosen, found.states() if found else []))
    return "\n\n".join(table.render("text") for table in tables)


def _say(line: str) -> None:
    """Print a line above that of the progress, if there is one."""
    with progress.paused():
        click.echo(line)
        sys.stdout.flush()


@study.command("status")
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.option("--format", "format_", type=click.Choice(["text", "markdown", "json"]), default="text", show_default=True)
def study_status(folder: Path, format_: Literal["text", "markdown", "json"]) -> None:
    """Show how far the study in DIR is, whether it runs or not."""
    from resnet_bench.render import study_tables
    from resnet_bench.study.folder import StudyFolder

    found = StudyFolder.open(folder)
    states = found.states()
    if format_ == "json":
        click.echo(json.dumps(study_tables.as_dict(found, states), indent=2))
    else:
        click.echo(study_tables.status(found, states).render(format_))


@study.command("add")
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.option("--seeds", help="Further seeds, such as 5-9.")
@click.option("--architectures", help="Further networks, separated by commas.")
@click.option("--engine", "engines", help="Further engines, separated by commas.")
def study_add(folder: Path, seeds: str | None, architectures: str | None, engines: str | None) -> None:
    """Add cells to the study in DIR; nothing is trained yet.

    \b
    resnet-bench study add runs/study --seeds 5-9
    """
    from resnet_bench.study import cells, planning
    from resnet_bench.study.folder import StudyFolder

    more: dict[str, tuple[Any, ...]] = {"seeds": cells.numbers(seeds)} if seeds else {}
    more |= {"architectures": option_names(architectures)} if architectures else {}
    more |= {"engines": option_names(engines)} if engines else {}
    if not more:
        raise UserError("Nobody said what to add; give --seeds, --architectures or --engine.")
    StudyFolder.open(folder)
    with StudyFolder.writing(folder) as found:
        assert found is not None
        before = len(found.plan.cells)
        found.write(planning.extended(found, **more))
        added = len(found.plan.cells) - before
    click.echo(f"Added: {added} of now {before + added} cells; train them with: {found.command}")


@readable()
def main(args: list[str] | None = None) -> Any:
    """Run the command line.

    The exit status is 0, 1 where a check or a cell of a study failed, 2 for what the user can mend, 130 after Ctrl-C,
    141 where the reader of the output has closed it, 143 after SIGTERM.
    """
    try:
        with terminable():
            _run(args)
    except KeyboardInterrupt as error:
        word, status = ("terminated", TERMINATED) if isinstance(error, Terminated) else ("interrupted", INTERRUPTED)
        _tell(f"resnet-bench: {word}" + (f"; {error}" if str(error) else ""))
        sys.exit(status)


def _run(args: list[str] | None) -> None:
    out = sys.stdout
    progress.begin()
    try:
        sys.exit(cli.main(args, prog_name="resnet-bench", standalone_mode=False))
    except SystemExit:
        if sys.stdout is not out:  # click has replaced it, because the reader has closed the pipe
            sys.exit(BROKEN_PIPE)
        raise
    except click.exceptions.Exit as exit_:
        sys.exit(exit_.exit_code)
    except click.ClickException as error:
        with _telling():
            error.show()
        sys.exit(2)
    except UserError as error:
        _tell(f"resnet-bench: error: {error}")
        sys.exit(error.status)
    except OSError as error:
        _discard(sys.stdout)
        if isinstance(error, BrokenPipeError):  # the reader closed the pipe, as `head` does
            sys.exit(BROKEN_PIPE)
        where = error.filename or ("the output" if error.errno == errno.ENOSPC else "the system")
        _tell(f"resnet-bench: error: {where}: {error.strerror or error}.")
        sys.exit(2)
    except click.Abort as abort:  # what click makes of Ctrl-C
        raise abort.__cause__ if isinstance(abort.__cause__, KeyboardInterrupt) else KeyboardInterrupt from None


def _tell(line: str) -> None:
    """Print on standard error."""
    with _telling():
        click.echo(line, err=True)


@contextlib.contextmanager
def _telling() -> Iterator[None]:
    """Where standard error is full, the exit status has to say it alone."""
    try:
        yield
    except OSError:
        _discard(sys.stderr)


def _discard(stream: Any) -> None:
    """What a stream still holds goes nowhere: at exit Python would fail to write it again, and end with status 120."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    main()
