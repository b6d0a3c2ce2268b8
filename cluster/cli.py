"""The command `enumerator`. It only takes arguments apart: the work is done elsewhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from cluster.commands import checks, jobs, plot, run, serve, statistics, tables, upkeep
from cluster.commands.options import say
from cluster.failure import DEBUG, on_one_line, told
from cluster.signals import stop_as_interrupt_does
from cluster.usage import COMPLETE, print_version, program, usage_message

app = typer.Typer(
    help="An atlas of the local minima of two-layer networks: enumerate, deduplicate, store, query.",
    epilog="First: enumerator run --students 6 --teachers 6 --starts 200 --catalogue atlas",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@app.callback()
def _enumerator(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version, and exit.")
    ] = False,
) -> None:
    """What stands before a command. That it is there lets commands be named, also if there were one only."""


# In the order in which the help lists them.
for _module in (run, tables, checks, upkeep, serve, jobs, statistics, plot):
    _module.add_commands(app)


def _fail(error: Exception) -> int:
    """Print an error on one line; the exit code."""
    is_usage = isinstance(error, typer.TyperException)
    text, code = (on_one_line(usage_message(error)), 2) if is_usage else told(error)
    say(f"error: {text}")
    return code


def run_command(arguments: Sequence[str]) -> int:
    """Run one command line; the exit code: 0 success, 2 bad usage or input, 130 stopped, 1 anything else."""
    try:
        return (
            app(
                args=list(arguments) or ["--help"],
                prog_name=program(),
                complete_var=COMPLETE,
                standalone_mode=False,
            )
            or 0
        )
    except Exception as error:  # whatever it is, the user is told on one line
        if os.environ.get(DEBUG):
            raise
        return _fail(error)


def main() -> NoReturn:
    """Entry point of the console script."""
    # This process computes little: it must not take a GPU away from the workers.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    stop_as_interrupt_does()
    sys.exit(run_command(sys.argv[1:]))


if __name__ == "__main__":
    main()
