"""What a render gives back: the picture and the facts about the run. Knows no server's state and draws nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from dr.broker.commands import Poisoned, Status
from dr.scene.model import F32, ViewSettings

if TYPE_CHECKING:
    from dr.image.framebuffer import Picture


class ServerStatistics(Struct, frozen=True, kw_only=True):
    """One server's part: buckets of the picture that it rendered, and the seconds its threads took for them."""

    name: str
    endpoint: str
    buckets: int
    seconds: float


class LostServer(Struct, frozen=True, kw_only=True):
    """A server that took part and was lost, or that took no part, and why; `removed`: because the user wanted it."""

    name: str
    reason: str
    removed: bool = False


class BucketRecord(Struct, frozen=True, kw_only=True):
    """One finished bucket: a line of `--bucket-log`."""

    x: int
    y: int
    width: int
    height: int
    server: str
    seconds: float
    attempts: int
    frame: int = 0  # its number


class Statistics(Struct, frozen=True, kw_only=True):
    """Facts about a run. They differ from run to run, so none of them goes into a picture."""

    seconds: float  # from the call to the last tile
    samples_per_second: float  # over the time from the first server's readiness to the last tile
    buckets: int
    servers: tuple[ServerStatistics, ...] = ()
    lost: tuple[LostServer, ...] = ()
    wait_share: float = 0.0  # of `seconds`, before the first server was ready
    render_share: float = 0.0  # of the time after that, all render threads together


class Result(Struct, frozen=True, kw_only=True, eq=False):
    """A rendered image with what is known about its making; of several frames, the last one.

    `channels` maps a channel's name to float32 pixels, [height, width] or [height, width, 3], of the region that was
    rendered: `beauty` is linear Rec. 709 radiance, `depth` metres (+inf is a miss). Pixels that were not rendered are
    0, with alpha 0; `complete` says whether there are none, `reason` why there are.
    """

    picture: Picture
    view: ViewSettings
    statistics: Statistics
    status: Status = Status.COMPLETE
    reason: str = ""
    poisoned: tuple[Poisoned, ...] = ()
    buckets: tuple[BucketRecord, ...] = ()
    notices: tuple[str, ...] = ()
    outputs: tuple[Path, ...] = ()  # the files that were written

    @property
    def complete(self) -> bool:
        return self.status is Status.COMPLETE

    @property
    def channels(self) -> dict[str, F32]:
        return self.picture.channels

    def save(self, path: str | Path) -> Path:
        """Writes .exr (every channel, linear), .png or .jpg (as displayed), whole or not at all. Raises BadInput."""
        from dr.image.output import write_picture

        write_picture(Path(path), self.picture, self.view)
        return Path(path)
