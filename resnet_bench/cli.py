"""The command line: each command reads its options, calls one module and prints.

torch takes seconds to import, so commands import what they need when they run and `--help` stays instant.
"""

from __future__ import annotations

import sys
from typing import Any

import click

from resnet_bench import __version__
from resnet_bench.errors import UserError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="resnet-bench")
def cli() -> None:
    """Measure and compare the training of five small residual networks on CPUs.

    The benchmarks themselves run with `pytest benchmarks`; the commands here train single networks, list and
    reconstruct the architectures, and turn saved JSON into tables.
    """


def main(args: list[str] | None = None) -> Any:
    """Run the command line: exit status 0, 2 for something the user can mend, 130 after Ctrl-C."""
    try:
        sys.exit(cli.main(args, prog_name="resnet-bench", standalone_mode=False))
    except click.exceptions.Exit as exit_:
        sys.exit(exit_.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except UserError as error:
        click.echo(f"resnet-bench: error: {error}", err=True)
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        click.echo("resnet-bench: interrupted", err=True)
        sys.exit(130)


if __name__ == "__main__":
    main()
