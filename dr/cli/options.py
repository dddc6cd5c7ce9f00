"""The options of `dr render`, spelt and explained. Knows words; knows nothing of what they do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from dr.scene.model import PixelFilter

PICTURE, FILES, FARM, RUN = "The picture", "The files", "Who renders", "The run"


def _option(panel: str, help_text: str, *names: str, metavar: str | None = None, **limits: Any) -> Any:
    return typer.Option(*names, help=help_text, metavar=metavar, rich_help_panel=panel, show_default=False, **limits)


def _flag(panel: str, help_text: str, *names: str) -> Any:
    return _option(panel, help_text, *names, metavar="")  # else typer shows a <bool> that it does not take


Scene: TypeAlias = Annotated[
    Path, typer.Argument(help="A .scene.toml, .gltf, .glb or .ply file.", metavar="SCENE", show_default=False)
]

Samples: TypeAlias = Annotated[
    int | None, _option(PICTURE, "Samples per pixel. Default: the scene's, else 64.", metavar="N", min=1)
]
Size: TypeAlias = Annotated[
    str | None, _option(PICTURE, "Pixels of the full frame. Default: the scene's, else 960x540.", metavar="WxH")
]
RegionOf: TypeAlias = Annotated[str | None, _option(PICTURE, "Render only this rectangle.", metavar="X,Y,W,H")]
Camera: TypeAlias = Annotated[
    str | None, _option(PICTURE, "A camera by name or number. Default: the first.", metavar="NAME")
]
Seed: TypeAlias = Annotated[int | None, _option(PICTURE, "Chooses the noise.", metavar="N", min=0, max=(1 << 32) - 1)]
MaxDepth: TypeAlias = Annotated[
    int | None, _option(PICTURE, "Longest path; the camera ray counts as 1.", metavar="N", min=1)
]
Filter: TypeAlias = Annotated[PixelFilter | None, _option(PICTURE, "How a pixel weighs its surroundings.")]
NoDefaultLight: TypeAlias = Annotated[bool, _flag(PICTURE, "Leave a scene without lights dark.", "--no-default-light")]

Output: TypeAlias = Annotated[
    list[Path] | None,
    _option(FILES, "A .exr, .png or .jpg; may be repeated. Default: the scene's name with .exr.", "--output", "-o"),
]
Channels: TypeAlias = Annotated[
    str | None,
    _option(FILES, "Of beauty, alpha, depth, normal, albedo, object_id. Default: all.", metavar="A,B,..."),
]
ViewTransform: TypeAlias = Annotated[
    str | None, _option(FILES, "Of .png and .jpg: Standard, 'ACES 2.0' or Raw.", metavar="NAME")
]
Exposure: TypeAlias = Annotated[float | None, _option(FILES, "Of .png and .jpg.", metavar="STOPS")]
BucketLog: TypeAlias = Annotated[Path | None, _option(FILES, "One JSON line per bucket.", metavar="FILE")]

Frames: TypeAlias = Annotated[
    str | None,
    _option(FILES, "Numbers and ranges; out.####.exr names the files. Default: one frame.", metavar="1-100xSTEP,..."),
]
SkipExisting: TypeAlias = Annotated[
    bool, _flag(FILES, "Leave out frames whose files are all there.", "--skip-existing")
]
Resume: TypeAlias = Annotated[bool, _flag(FILES, "Go on from the journal that an ended render has left.", "--resume")]
Autosave: TypeAlias = Annotated[
    str | None, _option(FILES, "Write what there is to OUT.partial.exr so often.", metavar="TIME")
]
TimeLimit: TypeAlias = Annotated[
    str | None, _option(RUN, "End then with what there is; --resume goes on.", metavar="TIME")
]
Wait: TypeAlias = Annotated[
    str | None, _option(FARM, "End when there was no server for so long. Default: wait.", metavar="TIME")
]

Server: TypeAlias = Annotated[
    list[str] | None, _option(FARM, "A running `dr serve`; may be repeated.", metavar="HOST:PORT")
]
Local: TypeAlias = Annotated[bool | None, _flag(FARM, "Whether this machine renders, too.", "--local/--no-local")]
LocalServers: TypeAlias = Annotated[
    int | None, _option(FARM, "Servers on this machine. Default: one per NUMA node.", metavar="N", min=1, max=1024)
]
Threads: TypeAlias = Annotated[
    int | None,
    _option(FARM, "Render threads on this machine, in all. Default: one per CPU.", metavar="N", min=1, max=4096),
]
BucketSize: TypeAlias = Annotated[
    str | None, _option(FARM, "Side of a bucket in pixels. Default: auto.", metavar="N|auto")
]
BucketOrder: TypeAlias = Annotated[
    str | None, _option(FARM, "spiral, hilbert, rows, columns, checker or random.", metavar="ORDER")
]

Listen: TypeAlias = Annotated[
    str | None,
    _option(FARM, "Let servers in that dial out (`dr serve --dial`); * is every interface.", metavar="HOST:PORT"),
]
Dial: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        metavar="HOST:PORT",
        show_default=False,
        help="Also serve a client that renders with --listen there, whenever there is one; may be repeated.",
    ),
]

Insecure: TypeAlias = Annotated[
    bool, _flag(RUN, "Use no keys: whoever is on the network can interfere. For a closed lab network.", "--insecure")
]

SettingsFile: TypeAlias = Annotated[Path | None, _option(RUN, "Another dr.toml.", "--settings", metavar="FILE")]
Check: TypeAlias = Annotated[bool, _flag(RUN, "Report files, memory, cameras and servers; render nothing.", "--check")]
Json: TypeAlias = Annotated[bool, _flag(RUN, "One JSON object last on stdout.", "--json")]
Quiet: TypeAlias = Annotated[bool, _flag(RUN, "Say nothing but errors.", "--quiet", "-q")]
Verbose: TypeAlias = Annotated[bool, _flag(RUN, "Say everything, and where the log is.", "--verbose", "-v")]
