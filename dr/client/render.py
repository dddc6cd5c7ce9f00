"""Renders what is asked for: starts servers, surveys the scene, runs the loop. Draws and prints nothing."""

from __future__ import annotations

import os
import platform
import threading
from contextlib import ExitStack, closing
from math import inf
from time import monotonic
from typing import TYPE_CHECKING

from msgspec.structs import replace

from dr.broker.commands import Finished, Status
from dr.broker.events import Event, ListeningBegan, ServerExpected
from dr.broker.fleet import HEARING, Timers
from dr.broker.state import Broker
from dr.client.checks import check_outputs, check_scene
from dr.client.files import SceneFiles
from dr.client.frame import Plan
from dr.client.frames import show_frames
from dr.client.link import Link
from dr.client.local import LocalServers
from dr.client.loop import Loop, Surroundings
from dr.client.outputs import Outputs
from dr.client.request import Request, merge
from dr.client.result import Result, Statistics
from dr.client.sequence import FrameSequence, ShowProgress, Wish
from dr.client.sources import Source, choose_source, named_source, plan_local, recruit, save_source, wants_local, warn
from dr.client.tally import Tally
from dr.errors import BadInput, Refused
from dr.image.framebuffer import Picture
from dr.scene.model import Region, RenderSettings, ViewSettings
from dr.settings import settings_part

if TYPE_CHECKING:
    from dr.scene.survey import Survey

REMOTE_THREADS = 16  # of a server that was not asked yet, for the choice of a bucket size

EMPTY = Picture(width=0, height=0, region=Region(0, 0, 0, 0), channels={})  # of a render with nothing to do


def render_request(request: Request, show: ShowProgress | None, cancel: threading.Event) -> Result:
    """Renders the frames of a request and writes their pictures. Raises BadInput or Refused."""
    started = monotonic()
    check_scene(request.scene)
    check_outputs(request)
    with ExitStack() as stack:
        local = stack.enter_context(LocalServers())
        link = stack.enter_context(closing(Link(request.security, request.listen)))
        source = named_source(request)
        recruiter = stack.enter_context(closing(recruit(request, source, link.context))) if source else None
        if wants_local(request, source):
            local.start(plan_local(request.settings), request.settings)
        survey = _survey_unless(cancel, request)
        source = source or choose_source(request, survey)
        recruiter = recruiter or stack.enter_context(closing(recruit(request, source, link.context)))
        if not local.servers and wants_local(request, source):
            local.start(plan_local(request.settings), request.settings)
        render = Render(
            request,
            survey,
            Surroundings(link=link, servers=local, recruiter=recruiter),
            Tally(started, keeps_records=request.bucket_log is not None),
        )
        render.warn(source)
        if not render.numbers:
            return render.nothing(show)
        frames = stack.enter_context(render.make_frames(source, show))
        frames.check_journals()
        end = render.run(frames, cancel)
        if end.status is Status.COMPLETE and (line := save_source(request, source)):
            frames.told(line)
        return render.result(end, frames)


class Render:
    """One request whose scene is known."""

    def __init__(self, request: Request, survey: Survey, around: Surroundings, tally: Tally) -> None:
        self.request = request
        self.survey = survey
        self.around = around
        self.settings: RenderSettings = merge(survey.settings, request.picture)
        self.view: ViewSettings = merge(survey.view, request.view)
        check_outputs(request, self.settings, self.view)
        self.outputs = Outputs(request.outputs, request.numbered)
        self.files = SceneFiles(survey.manifest, request.scene.parent)
        self.tally = tally
        self.numbers = self._choose_frames()

    def warn(self, source: Source) -> None:
        """Tells the user what should be known beforehand."""
        request = self.request
        remote = (*self.around.recruiter.endpoints, *([] if request.listen is None else [request.listen]))
        complaints = [f"{line}; the render goes on without" for line in source.complaints]
        for line in (*warn(request, remote, self.settings.region is not None), *complaints, *self.survey.notices):
            self.tally.add_line(line)

    def _choose_frames(self) -> tuple[int, ...]:
        """The numbers of the frames that are to be rendered."""
        wanted = self.request.frames or (self.settings.frame,)
        if self.request.frames and len(wanted) > 1 and not self.survey.animated:
            self.tally.add_line("nothing moves in this scene: all frames are alike")
        there = [number for number in wanted if self._is_there(number)]
        if there:
            are = "s {} are" if len(there) > 1 else " {} is"
            self.tally.add_line(f"frame{are.format(show_frames(there))} there already: not rendered again")
        return tuple(number for number in wanted if number not in set(there))

    def _is_there(self, number: int) -> bool:
        """Whether the frame needs no rendering: it has its files and, if it is to be resumed, no journal."""
        request, journal = self.request, self.outputs.journal(number)
        if not (request.skip_existing or request.resume) or not self.outputs.exist(number):
            return False
        return request.skip_existing or journal is None or not journal.exists()

    def make_frames(self, source: Source, show: ShowProgress | None) -> FrameSequence:
        request, options = self.request, self.request.settings
        kernels = _code_digest()
        timers = replace(settings_part(options, Timers), wait_s=request.wait_s or inf)
        broker = Broker(
            kernels=kernels,
            seed=os.urandom(16),
            client=f"{platform.node() or 'client'}, process {os.getpid()}",
            timers=timers,
            restart_servers=options.restart_servers_on_render_end,
            frames=len(self.numbers),
            max_servers=options.max_servers,
            patient=source.watched and request.wait_s is not None,
        )
        plan = Plan(
            settings=self.settings,
            channels=request.channels,
            manifest=self.files.manifest_digest,
            assets=self.files.sizes(),
            kernels=kernels,
            options=options,
            threads=self._count_threads(),
        )
        wish = Wish(
            numbers=self.numbers,
            outputs=self.outputs,
            view=self.view,
            resume=request.resume,
            autosave_s=request.autosave_s or inf,
            show=show,
        )
        return FrameSequence(broker, plan, wish, self.tally)

    def run(self, frames: FrameSequence, cancel: threading.Event) -> Finished:
        listener, local = self.around.link.listener, self.around.servers
        fleet = frames.broker.fleet
        self.around.recruiter.connected = lambda: [each.endpoint for each in fleet if each.phase in HEARING]
        first: list[Event] = [
            *([ListeningBegan(listener.place)] if listener else []),
            *(ServerExpected(server.endpoint, server.plan.name) for server in local.servers),
            *frames.begin_frames(),
        ]
        stop_at = self.tally.started + (self.request.time_limit_s or inf)
        end = Loop(frames.broker, self.files, self.around, frames, stop_at).run(first, cancel)
        local.ask_to_stop()
        self.tally.ended = monotonic()
        frames.end()
        return end

    def result(self, end: Finished, frames: FrameSequence) -> Result:
        frames.show_now()
        if end.status is Status.BAD_INPUT:
            raise BadInput(end.reason)
        if end.status is Status.REFUSED:
            raise Refused(end.reason)
        return Result(
            picture=frames.picture(),
            view=self.view,
            statistics=self.tally.statistics(frames.broker.report(), monotonic()),
            status=end.status,
            reason=end.reason,
            poisoned=end.poisoned,
            buckets=tuple(self.tally.records),
            notices=tuple(self.tally.notices),
            outputs=tuple(frames.written),
        )

    def nothing(self, show: ShowProgress | None) -> Result:
        """Every frame is there already."""
        if show:
            show(self.tally.idle(monotonic()))
        return Result(
            picture=EMPTY,
            view=self.view,
            statistics=Statistics(seconds=monotonic() - self.tally.started, samples_per_second=0.0, buckets=0),
            notices=tuple(self.tally.notices),
        )

    def _count_threads(self) -> int:
        """Render threads of the farm, as far as they are known."""
        remote = len(self.around.recruiter.endpoints) + (self.request.listen is not None)
        return sum(server.plan.threads for server in self.around.servers.servers) + REMOTE_THREADS * remote


def _survey_unless(cancel: threading.Event, request: Request) -> Survey:
    """The terminal's Ctrl-C ends the survey's process, too: that is no fault of the scene."""
    from dr.scene.survey import run_survey

    try:
        return run_survey(request.scene, request.picture)
    except BadInput:
        if cancel.is_set():
            raise KeyboardInterrupt from None
        raise


def _code_digest() -> str:
    from dr.scene.code_digest import code_digest

    return code_digest()
