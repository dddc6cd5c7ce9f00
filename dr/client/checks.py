"""Finds out what is wrong with a request before anything is started. Knows files; knows no server."""

from __future__ import annotations

from pathlib import Path

from dr.client.outputs import Outputs
from dr.client.request import Request, merge
from dr.errors import BadInput, did_you_mean
from dr.scene.model import Region, RenderSettings, ViewSettings


def check_scene(path: Path) -> None:
    """BadInput, before anything starts, when there is no such file."""
    if path.is_dir():
        raise BadInput(f"{path}: expected a scene file, found a folder")
    if not path.exists():
        beside = (each.name for each in path.parent.iterdir()) if path.parent.is_dir() else ()
        raise BadInput(f"{path}: there is no such file{did_you_mean(path.name, beside)}")


def check_outputs(request: Request, settings: RenderSettings | None = None, view: ViewSettings | None = None) -> None:
    """BadInput when an output cannot be written: before anything starts, and when the scene's settings are known."""
    from dr.image.display import check_exposure, check_view
    from dr.image.output import check_output

    view = view or merge(ViewSettings(), request.view)
    check_view(view.view_transform)
    check_exposure(view.exposure)
    region = (settings.region or settings) if settings else Region(0, 0, 1, 1)
    first = request.frames[0] if request.frames else settings.frame if settings else 0
    for path in Outputs(request.outputs, request.numbered).of(first):
        check_output(path, (region.width, region.height), request.channels)
