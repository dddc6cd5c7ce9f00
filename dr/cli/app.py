"""Joins the commands into one program. Knows their names; knows nothing of what they do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from dr.cli import BAD_INPUT, say
from dr.cli.render import EXAMPLES as RENDER_EXAMPLES
from dr.cli.render import render
from dr.cli.serve import EXAMPLES as SERVE_EXAMPLES
from dr.cli.serve import serve
from dr.cli.settings import EXAMPLES as SETTINGS_EXAMPLES
from dr.cli.settings import settings
from dr.cli.warmup import warmup
from dr.cli.words import double_dashes

CLICK_INTERRUPTED = 130  # what it makes of a Ctrl-C
ClickError: type[Exception] = typer.BadParameter.__mro__[2]  # click's own base, wherever typer keeps it

app = typer.Typer(
    name="dr",
    help="Distributed rendering of one frame on many machines.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("render", epilog=RENDER_EXAMPLES)(render)
app.command("serve", epilog=SERVE_EXAMPLES)(serve)
app.command("warmup")(warmup)
app.command("settings", epilog=SETTINGS_EXAMPLES)(settings)


def _show_version(wanted: bool) -> None:
    if wanted:
        from dr import __version__

        print(f"dr {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    """Distributed rendering of one frame on many machines."""


def run(words: Sequence[str]) -> int:
    """Runs one command and gives its exit status. A usage error is a line on stderr and status 2."""
    command = typer.main.get_command(app)
    try:
        status = command.main(double_dashes(words, _long_options(command)), prog_name="dr", standalone_mode=False)
    except ClickError as error:
        text = error.format_message() if hasattr(error, "format_message") else str(error)
        if not text:  # `dr` alone: the help was shown
            return BAD_INPUT
        return say(
            f"{text.rstrip('.')}{' ' if text.endswith('?') else '; '}see dr {_command_name(words)}--help", BAD_INPUT
        )
    if status == CLICK_INTERRUPTED:
        raise KeyboardInterrupt
    return status if isinstance(status, int) else 0


def _long_options(command: object) -> frozenset[str]:
    """Names of all options of all commands that are longer than a letter, without dashes."""
    commands = getattr(command, "commands", {}).values()
    spelt = [name for sub in commands for param in sub.params for name in (*param.opts, *param.secondary_opts)]
    return frozenset(name.removeprefix("--") for name in spelt if name.startswith("--"))


def _command_name(words: Sequence[str]) -> str:
    names = [info.name for info in app.registered_commands]
    return next((f"{word} " for word in words if word in names), "")
