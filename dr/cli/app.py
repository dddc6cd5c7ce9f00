"""Joins the commands into one program. Knows their names; knows nothing of what they do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from dr.cli import BAD_INPUT, say
from dr.cli.dashes import command_path, mend_dashes, read_names
from dr.cli.doctor import EXAMPLES as DOCTOR_EXAMPLES
from dr.cli.doctor import doctor
from dr.cli.keys import keys_app
from dr.cli.logs import logs_app
from dr.cli.render import EXAMPLES as RENDER_EXAMPLES
from dr.cli.render import render
from dr.cli.serve import EXAMPLES as SERVE_EXAMPLES
from dr.cli.serve import serve
from dr.cli.servers import servers_app
from dr.cli.service import EXAMPLES as SERVICE_EXAMPLES
from dr.cli.service import install, service_status, uninstall
from dr.cli.settings import EXAMPLES as SETTINGS_EXAMPLES
from dr.cli.settings import settings
from dr.cli.spawner import EXAMPLES as SPAWNER_EXAMPLES
from dr.cli.spawner import spawner, stop
from dr.cli.status import EXAMPLES as STATUS_EXAMPLES
from dr.cli.status import status
from dr.cli.warmup import warmup

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
spawner_app = typer.Typer(rich_markup_mode="rich")
spawner_app.callback(invoke_without_command=True, epilog=SPAWNER_EXAMPLES)(spawner)
spawner_app.command("stop")(stop)
spawner_app.command("install", epilog=SERVICE_EXAMPLES)(install)
spawner_app.command("uninstall")(uninstall)
spawner_app.command("status")(service_status)
app.add_typer(spawner_app, name="spawner")
app.command("status", epilog=STATUS_EXAMPLES)(status)
app.command("doctor", epilog=DOCTOR_EXAMPLES)(doctor)
app.add_typer(logs_app, name="logs")
app.add_typer(keys_app, name="keys")
app.add_typer(servers_app, name="servers")
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
    names = read_names(command)
    try:
        ended = command.main(mend_dashes(words, names), prog_name="dr", standalone_mode=False)
    except ClickError as error:
        text = error.format_message() if hasattr(error, "format_message") else str(error)
        if not text:  # `dr` alone: the help was shown
            return BAD_INPUT
        place = " ".join(["dr", *command_path(words, names), "--help"])
        return say(f"{text.rstrip('.')}{' ' if text.endswith('?') else '; '}see {place}", BAD_INPUT)
    if ended == CLICK_INTERRUPTED:
        raise KeyboardInterrupt
    return ended if isinstance(ended, int) else 0
