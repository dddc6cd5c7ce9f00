"""The public face of the render farm. Knows where each name lives; loads nothing until it is asked for.

`image = dr.render("scene.glb", samples=64)`, then `image.channels["beauty"]` or `image.save("scene.exr")`: docs/api.md.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dr.client.api import load_scene as load_scene
    from dr.client.api import render as render
    from dr.client.result import Result as Result
    from dr.client.result import Statistics as Statistics
    from dr.client.tally import Progress as Progress
    from dr.errors import BadInput as BadInput
    from dr.errors import DrError as DrError
    from dr.errors import Impossible as Impossible
    from dr.errors import PeerLost as PeerLost
    from dr.errors import ProtocolError as ProtocolError
    from dr.errors import Refused as Refused
    from dr.scene.model import Region as Region
    from dr.scene.model import RenderSettings as RenderSettings
    from dr.scene.model import Scene as Scene

__version__ = "0.1.0"

_HOMES = {
    "render": "dr.client.api",
    "load_scene": "dr.client.api",
    "Result": "dr.client.result",
    "Statistics": "dr.client.result",
    "Progress": "dr.client.tally",
    "BadInput": "dr.errors",
    "DrError": "dr.errors",
    "Impossible": "dr.errors",
    "PeerLost": "dr.errors",
    "ProtocolError": "dr.errors",
    "Refused": "dr.errors",
    "Region": "dr.scene.model",
    "RenderSettings": "dr.scene.model",
    "Scene": "dr.scene.model",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'dr' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
