"""The options of `dr spawner` and of its service: spelt, explained, turned into a plan. Starts nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer
from msgspec import Struct

from dr.cli.words import parse_engine, parse_nodes, parse_numa, parse_per_node, parse_ports
from dr.protocol.messages import EngineKind
from dr.settings import LoadedSettings, load_settings

if TYPE_CHECKING:
    from workers.numa.plan import Plan

PLACE, RUN = "Which servers, where", "The run"


def _option(panel: str, help_text: str, *names: str, metavar: str | None = None, **limits: Any) -> Any:
    return typer.Option(*names, help=help_text, metavar=metavar, rich_help_panel=panel, show_default=False, **limits)


def _flag(panel: str, help_text: str, *names: str) -> Any:
    return _option(panel, help_text, *names, metavar="")  # else typer shows a <bool> that it does not take


Numa: TypeAlias = Annotated[
    str | None,
    _option(PLACE, "-numa=4: how many servers. -numa: one per node. Default: one on all CPUs.", metavar="[=N]"),
]
NodeList: TypeAlias = Annotated[
    str | None, _option(PLACE, "-node=3,5,6 or -node=0-3,8: only these nodes.", "--node", metavar="=A,B")
]
PortList: TypeAlias = Annotated[
    str | None,
    _option(PLACE, "TCP ports; the last is counted up. Default: 20204.", "--port", "--ports", metavar="=P,Q"),
]
Engine: TypeAlias = Annotated[
    str | None, _option(PLACE, "production (finished pictures) or rt (interactive, not there yet).", metavar="=ENGINE")
]
PerNode: TypeAlias = Annotated[
    str | None, _option(PLACE, "Servers on each node; they divide its CPUs.", "--per-node", metavar="N")
]
Bind: TypeAlias = Annotated[
    str | None,
    _option(PLACE, "Where to listen. Default: all interfaces with a farm key, else 127.0.0.1.", metavar="ADDRESS"),
]
Sysfs: TypeAlias = Annotated[
    Path | None, _option(PLACE, "A folder that stands for /sys: another host's nodes.", metavar="DIR")
]
JustPlan: TypeAlias = Annotated[bool, _flag(RUN, "Show which servers it would be; start nothing.", "--plan")]
Json: TypeAlias = Annotated[bool, _flag(RUN, "With --plan: one JSON object on stdout.", "--json")]
Verbose: TypeAlias = Annotated[bool, _flag(RUN, "Log everything.", "--verbose", "-v")]


class Wanted(Struct, frozen=True, kw_only=True):
    """What the user wrote."""

    numa: str | None = None
    node: str | None = None
    port: str | None = None
    engine: str | None = None
    per_node: str | None = None
    bind: str | None = None
    settings: Path | None = None
    sysfs: Path | None = None
    verbose: bool = False
    insecure: bool = False
    dial: tuple[str, ...] = ()

    def load(self) -> LoadedSettings:
        """The settings with the options among them; each call reads them anew."""
        return load_settings(self.settings, os.environ, {"bind": self.bind})

    def words(self) -> list[str]:
        """The same options for another command line, in another folder."""
        given = {
            "-numa": self.numa,
            "-node": self.node,
            "-port": self.port,
            "-engine": self.engine,
            "--per-node": self.per_node,
            "--bind": self.bind,
            "--settings": self.settings.absolute() if self.settings else None,
        }
        words = [f"{name}={value}" for name, value in given.items() if value is not None]
        words += [f"--dial={place}" for place in self.dial]
        flags = {"--verbose": self.verbose, "--insecure": self.insecure}
        return [*words, *(name for name, is_given in flags.items() if is_given)]


def plan_servers(wanted: Wanted, loaded: LoadedSettings, only_show: bool = False) -> Plan:
    """Raises BadInput for what cannot be. To be shown, another host's tree counts whole; else only CPUs of ours."""
    from workers.numa.plan import PlanOptions, make_plan
    from workers.numa.topology import SYSFS, read_topology, usable_cpus

    options = PlanOptions(
        numa=None if wanted.numa is None else parse_numa(wanted.numa),
        nodes=None if wanted.node is None else parse_nodes(wanted.node),
        ports=_ports(wanted, loaded),
        per_node=None if wanted.per_node is None else parse_per_node(wanted.per_node),
        engine=EngineKind.PRODUCTION if wanted.engine is None else parse_engine(wanted.engine),
        announce=loaded.values.announce_port,
    )
    usable = None if only_show and wanted.sysfs else usable_cpus()
    return make_plan(read_topology(wanted.sysfs or SYSFS, usable), options)


def _ports(wanted: Wanted, loaded: LoadedSettings) -> tuple[int, ...]:
    """None: the engine's own port."""
    if wanted.port is not None:
        return parse_ports(wanted.port)
    return () if loaded.origins["port"] == "default" else (loaded.values.port,)
