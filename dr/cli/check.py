"""`dr render --check`: reports what a render would use. Renders nothing and starts no server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from dr.client.addresses import resolve_servers, saved_words
from dr.client.checks import check_outputs, check_scene
from dr.client.listen import check_listen
from dr.client.request import Request, merge
from dr.client.sources import Source, choose_source, named_source, plan_local, wants_local
from dr.scene.model import RenderSettings
from dr.scene.survey import run_survey

if TYPE_CHECKING:
    from dr.client.addresses import Servers
    from dr.scene.survey import Survey

MB = 1e6


def check_request(request: Request, json: bool) -> int:
    """Prints the report, as tables or as one JSON object. Raises BadInput like a render would."""
    check_scene(request.scene)
    if request.listen is not None:
        check_listen(request.listen, request.security)
    named = named_source(request)
    servers = resolve_servers(request.servers, request.security).require() if named else None
    survey = run_survey(request.scene, request.picture)
    settings = merge(survey.settings, request.picture)
    check_outputs(request, settings, merge(survey.view, request.view))
    source = named or choose_source(request, survey)
    servers = servers or resolve_servers(saved_words(source.servers), request.security)
    if not wants_local(request, source) and request.listen is None:
        servers.require()
    who = _servers(request, servers, source)
    if json:
        facts = {"settings": settings, "servers": who, "survey": survey}
        print(msgspec.json.encode(facts).decode())
    else:
        _print_tables(survey, settings, who)
    return 0


def _servers(request: Request, servers: Servers, source: Source) -> list[dict[str, Any]]:
    """Who would render: servers that would be dialled or have no address, dial in, or would be started here."""
    endpoints = servers.endpoints
    lost = [
        {"name": host, "endpoint": f"cannot be resolved: {why}", "threads": None}
        for host, why in servers.unresolved.items()
    ]
    dialled = [{"name": endpoint, "endpoint": endpoint, "threads": None} for endpoint in endpoints]
    plans = plan_local(request.settings) if wants_local(request, source) else []
    return [
        *dialled,
        *lost,
        *([{"name": "who dials in", "endpoint": request.listen, "threads": None}] if request.listen else []),
        *({"name": plan.name, "endpoint": "this machine", "threads": plan.threads} for plan in plans),
    ]


def _print_tables(survey: Survey, settings: RenderSettings, servers: list[dict[str, Any]]) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    counts = survey.counts
    facts = [
        ("picture", f"{settings.width} x {settings.height}, {settings.samples} samples, depth {settings.max_depth}"),
        ("geometry", f"{counts.triangles:,} triangles, {counts.meshes} meshes, {counts.instances} instances"),
        ("materials", f"{counts.materials} materials, {counts.images} images, {counts.lights} lights"),
        ("memory", f"{survey.memory_bytes / MB:,.0f} MB on each host, decoded textures come on top"),
        ("cameras", ", ".join(name or f"{i}" for i, name in enumerate(survey.cameras))),
        *(("note", notice) for notice in survey.notices),
    ]
    files = [(asset.name, asset.role.value, f"{asset.size / MB:,.2f} MB") for asset in survey.assets]
    rows = [(s["name"], s["endpoint"], str(s["threads"] or "?")) for s in servers]
    console.print(_table(survey.name or survey.main, (), facts))
    console.print(_table("Files", ("name", "role", "size"), files))
    console.print(_table("Servers", ("name", "where", "threads"), rows))


def _table(title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left", show_header=bool(columns), box=None, pad_edge=False)
    for column in columns or ("", ""):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table
