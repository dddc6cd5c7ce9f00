"""Renders one frame: starts servers, surveys the scene, runs the loop. Draws and prints nothing."""

from __future__ import annotations

import logging
import os
import platform
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from dr.broker.buckets import Order, choose_size, cut_frame
from dr.broker.commands import Finished, MergeTile, Notify, Status
from dr.broker.events import Event, FrameRequested, ListeningBegan, ServerAdded, ServerExpected
from dr.broker.fleet import Timers
from dr.broker.job import Frame
from dr.broker.state import Broker
from dr.client.addresses import Servers, resolve_servers, saved_words
from dr.client.files import SceneFiles
from dr.client.guard import WARNING
from dr.client.link import Link
from dr.client.listen import OPEN, check_listen
from dr.client.local import LocalServers, ServerPlan, host_nodes, plan_servers
from dr.client.loop import Loop
from dr.client.request import Request, merge
from dr.client.result import Result
from dr.client.tally import Progress, Tally
from dr.errors import BadInput, Refused, did_you_mean
from dr.keys.security import Guard
from dr.scene.model import Region, RenderSettings, ViewSettings
from dr.settings import Settings, settings_part

if TYPE_CHECKING:
    from dr.scene.survey import Survey

log = logging.getLogger("dr.client")

SNAPSHOT_S = 0.05  # between two calls of the user's progress callback
REMOTE_THREADS = 16  # of a server that was not asked yet, for the choice of a bucket size

ShowProgress = Callable[[Progress], None]


class Watcher:
    """Merges tiles into the picture and tells the user where the render stands. The loop's observer."""

    def __init__(self, broker: Broker, frame: Frame, tally: Tally, show: ShowProgress | None) -> None:
        from dr.image.framebuffer import Framebuffer

        self.broker = broker
        self.framebuffer = Framebuffer(frame.settings, frame.channels)
        self.tally = tally
        self.show = show
        self.next_snapshot = 0.0

    def tile_arrived(self, tile: MergeTile) -> None:
        from dr.protocol.tiles import unpack

        self.framebuffer.merge(tile.bucket, unpack(tile.bucket, tile.channels, tile.payload))
        self.tally.add_tile(tile)

    def notice_given(self, notice: Notify) -> None:
        self.tally.add_notice(notice, monotonic())

    def turn_ended(self) -> None:
        now = monotonic()
        if self.show and now >= self.next_snapshot:
            self.next_snapshot = now + SNAPSHOT_S
            self.show(self.tally.progress(self.broker.report(), now))

    def show_last(self) -> None:
        if self.show:
            self.show(self.tally.progress(self.broker.report(), monotonic()))


def render_frame(request: Request, show: ShowProgress | None, cancel: threading.Event) -> Result:
    """Renders one frame and returns what there is of it, complete or not. Raises BadInput or Refused."""
    started = monotonic()
    check_scene(request.scene)
    check_outputs(request)
    if request.listen is not None:
        check_listen(request.listen, request.security)
    named = find_named(request)
    with LocalServers() as local:
        if wants_local(request, None):
            local.start(plan_local(request.settings), request.settings)
        survey = _survey_unless(cancel, request)
        settings = merge(survey.settings, request.picture)
        view = merge(survey.view, request.view)
        check_outputs(request, settings, view)
        found = named or find_saved(request, survey)
        endpoints = found.endpoints
        if not local.servers and wants_local(request, endpoints):
            local.start(plan_local(request.settings), request.settings)
        places = [*endpoints, *([] if request.listen is None else [request.listen])]
        frame, files = make_frame(request, survey, settings, _thread_count(local, places))
        broker = _broker(request.settings)
        notices = (*_warn(request, found), *survey.notices)
        watcher = Watcher(broker, frame, Tally(started, notices), show)
        link = Link(request.security, request.listen)
        first: list[Event] = [
            *([ListeningBegan(link.listener.place)] if link.listener else []),
            *(ServerExpected(server.endpoint, server.plan.name) for server in local.servers),
            *(ServerAdded(endpoint, whole_host=whole) for endpoint, whole in endpoints.items()),
            FrameRequested(frame),
        ]
        end = Loop(broker, files, local, watcher, link).run(first, cancel)
        local.ask_to_stop()
        finished = monotonic()
        watcher.show_last()
        return _result(end, watcher, view, finished)


def check_scene(path: Path) -> None:
    """BadInput, before anything starts, when there is no such file."""
    if path.is_dir():
        raise BadInput(f"{path}: expected a scene file, found a folder")
    if not path.exists():
        beside = (each.name for each in path.parent.iterdir()) if path.parent.is_dir() else ()
        raise BadInput(f"{path}: there is no such file{did_you_mean(path.name, beside)}")


def survey_scene(request: Request) -> Survey:
    """What the scene file says, read in a process of its own."""
    from dr.scene.survey import run_survey

    return run_survey(request.scene, request.picture)


def _survey_unless(cancel: threading.Event, request: Request) -> Survey:
    """The terminal's Ctrl-C ends the survey's process, too: that is no fault of the scene."""
    try:
        return survey_scene(request)
    except BadInput:
        if cancel.is_set():
            raise KeyboardInterrupt from None
        raise


def wants_local(request: Request, endpoints: Collection[str] | None) -> bool:
    """Whether servers are started here: if the user wants it or, with no other that could come, did not forbid it.

    With None for servers that are not known yet: whether they are started whatever those will be.
    """
    if request.local is not None:
        return request.local
    alone = endpoints is not None and not endpoints and request.listen is None
    return request.settings.use_local_host or alone


def plan_local(settings: Settings) -> list[ServerPlan]:
    return plan_servers(host_nodes(), settings.local_servers or None, settings.threads or None)


def find_named(request: Request) -> Servers | None:
    """The servers of the command line; None when it names none.

    Raises BadInput when not one of them has an address: whoever has just typed it wants to know.
    """
    return resolve_servers(request.servers, request.security).require() if request.servers else None


def find_saved(request: Request, survey: Survey) -> Servers:
    """The servers that are saved in the scene or else in the settings.

    If this machine renders, or servers may dial in, the render does not depend on them, as on a laptop on the road.
    """
    servers = resolve_servers(saved_words(survey.servers or request.settings.servers), request.security)
    if wants_local(request, None) or request.listen is not None:
        return servers
    if request.local is False and not servers.endpoints and not servers.unresolved:
        raise BadInput(
            "no server renders: --no-local needs --server or --listen HOST:PORT, or servers in the scene or settings"
        )
    return servers.require()


def _warn(request: Request, servers: Servers) -> list[str]:
    """What the user should know before a render that goes on all the same; into the log, too."""
    loud = [WARNING] if request.security.insecure else open_line(request)
    warnings = [*loud, *(f"{line}; the render goes on without" for line in servers.complaints())]
    for line in warnings:
        log.warning("%s", line)
    return warnings


def open_line(request: Request) -> list[str]:
    """Who may dial in, when it is anybody on this machine."""
    if request.listen is None or check_listen(request.listen, request.security)[1] is not Guard.OPEN:
        return []
    return [OPEN.format(place=request.listen)]


def make_frame(request: Request, survey: Survey, settings: RenderSettings, threads: int) -> tuple[Frame, SceneFiles]:
    """The buckets to render, and the files that servers will ask for."""
    options = request.settings
    size = options.bucket_size or choose_size(settings, threads)
    files = SceneFiles(survey.manifest, request.scene.parent)
    frame = Frame(
        settings=settings,
        channels=request.channels,
        buckets=cut_frame(settings, size, Order(options.bucket_order), settings.seed),
        manifest=files.manifest_digest,
        assets=files.sizes(),
    )
    return frame, files


def check_outputs(request: Request, settings: RenderSettings | None = None, view: ViewSettings | None = None) -> None:
    """BadInput when an output cannot be written: before anything starts, and when the scene's settings are known."""
    from dr.image.display import check_exposure, check_view
    from dr.image.output import check_output

    view = view or merge(ViewSettings(), request.view)
    check_view(view.view_transform)
    check_exposure(view.exposure)
    region = (settings.region or settings) if settings else Region(0, 0, 1, 1)
    for path in request.outputs:
        check_output(path, (region.width, region.height), request.channels)


def _result(end: Finished, watcher: Watcher, view: ViewSettings, finished: float) -> Result:
    report = watcher.broker.report()
    if end.status is Status.BAD_INPUT:
        raise BadInput(end.reason)
    if end.status is Status.REFUSED:
        raise Refused(end.reason)
    return Result(
        picture=watcher.framebuffer.picture(),
        view=view,
        statistics=watcher.tally.statistics(report, finished),
        status=end.status,
        reason=end.reason,
        poisoned=end.poisoned,
        buckets=tuple(watcher.tally.records),
        notices=tuple(watcher.tally.notices),
    )


def _thread_count(local: LocalServers, endpoints: Collection[str]) -> int:
    return sum(server.plan.threads for server in local.servers) + REMOTE_THREADS * len(endpoints)


def _broker(settings: Settings) -> Broker:
    from dr.scene.code_digest import code_digest

    name = f"{platform.node() or 'client'}, process {os.getpid()}"
    return Broker(
        kernels=code_digest(),
        seed=os.urandom(16),
        client=name,
        timers=settings_part(settings, Timers),
        restart_servers=settings.restart_servers_on_render_end,
    )
