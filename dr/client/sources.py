"""Who shall render: the words of the command line, else the scene's own list, else the settings'. Dials nobody."""

from __future__ import annotations

import logging
from collections.abc import Collection
from time import monotonic
from typing import TYPE_CHECKING, Any

import zmq
from msgspec import Struct, field

from dr.client.guard import WARNING
from dr.client.listen import OPEN, check_listen
from dr.client.local import ServerPlan, host_nodes, plan_servers
from dr.client.recruiter import Recruiter
from dr.client.request import Request
from dr.client.saved_lists import save_in_scene
from dr.client.server_list import parse_entries
from dr.client.settings_watch import SettingsWatch
from dr.errors import BadInput
from dr.keys.security import Guard
from dr.settings import ServerAddress, Settings, load_settings

if TYPE_CHECKING:
    from dr.scene.survey import Survey

log = logging.getLogger("dr.client")


class Source(Struct, kw_only=True):
    """The list of servers of one render. `watched`: it is the settings file's, whose changes count while it renders."""

    servers: tuple[ServerAddress, ...] = ()
    words: tuple[str, ...] = ()  # of the command line, instead of `servers`
    watched: bool = False
    from_scene: bool = False
    complaints: list[str] = field(default_factory=list)  # names without an address

    @property
    def named(self) -> bool:
        """Whether any server is named."""
        return bool(self.words) or any(server.enabled for server in self.servers)


def named_source(request: Request) -> Source | None:
    """The servers of the command line, which count before the scene is known; None when it names none."""
    return Source(words=request.servers) if request.servers else None


def choose_source(request: Request, survey: Survey) -> Source:
    """The saved list that counts when the command line names no server. Raises BadInput when nobody would render."""
    if survey.servers:
        source = Source(servers=survey.servers, from_scene=True)
    else:
        source = Source(servers=request.settings.servers, watched=True)
    if request.local is False and request.listen is None and not source.named:
        raise BadInput(
            "no server renders: --no-local needs --server or --listen HOST:PORT, or servers in the scene or settings"
        )
    return source


def wants_local(request: Request, source: Source | None) -> bool:
    """Whether servers are started here: if the user wants it or, with no other that could come, did not forbid it.

    With None for servers that are not known yet: whether they are started whatever those will be.
    """
    if request.local is not None:
        return request.local
    alone = source is not None and not source.named and request.listen is None
    return request.settings.use_local_host or alone


def plan_local(settings: Settings) -> list[ServerPlan]:
    return plan_servers(host_nodes(), settings.local_servers or None, settings.threads or None)


def recruit(request: Request, source: Source, context: zmq.Context[Any]) -> Recruiter:
    """Looks for the servers of a list. Raises BadInput when nobody else renders and not one of them has an address."""
    settings = request.settings
    watch = None
    if source.watched and request.settings_file:
        watch = SettingsWatch(request.settings_file, lambda: _read_list(request), monotonic())
    wanted = source.words or source.servers
    recruiter = Recruiter(context, request.security, wanted, watch, settings.announce_port)
    try:
        alone = bool(source.words) or not (wants_local(request, source) or request.listen is not None)
        needed = alone and request.wait_s is None  # else names have as long as servers
        source.complaints.extend(recruiter.begin(required=needed))
    except BaseException:
        recruiter.close()
        raise
    return recruiter


def _read_list(request: Request) -> tuple[ServerAddress, ...]:
    """What the settings file says now. Its other settings count for the next render."""
    return load_settings(request.settings_file, {}).values.servers


def save_source(request: Request, source: Source) -> str:
    """Writes the list into the scene, if the settings ask for it; a line for the user, or nothing."""
    servers = [entry for word in source.words for entry in parse_entries(word)] or source.servers
    if not request.settings.save_servers_in_scene or not servers or source.from_scene:
        return ""
    try:
        saved = save_in_scene(request.scene, servers)
    except BadInput as error:
        return f"save_servers_in_scene: {error}"
    return f"{request.scene.name}: its list of servers is the one of this render now" if saved else ""


def warn(request: Request, endpoints: Collection[str], region: bool) -> list[str]:
    """What the user should know before a render that goes on all the same; into the log, too."""
    lines = [WARNING] if request.security.insecure else _open_line(request)
    if region and endpoints and request.settings.render_region_warning:
        lines.append("only a region of the frame is rendered over the network (render_region_warning)")
    for line in lines:
        log.warning("%s", line)
    return lines


def _open_line(request: Request) -> list[str]:
    """Who may dial in, when it is anybody on this machine."""
    if request.listen is None or check_listen(request.listen, request.security)[1] is not Guard.OPEN:
        return []
    return [OPEN.format(place=request.listen)]
