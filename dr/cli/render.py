"""`dr render SCENE`: turns words into a request. Decides nothing about rendering."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from dr.cli import options as o
from dr.cli.words import parse_bucket_size, parse_region, parse_size
from dr.client.request import Request, parse_channels
from dr.protocol.messages import Channel
from dr.settings import load_settings

EXAMPLES = """\
Examples:

dr render chair.glb -o chair.exr -o chair.png --samples 256 --size 1920x1080

dr render chair.scene.toml --region 100,50,320,240 --camera closeup

dr render chair.glb --server 127.0.0.1:20204 --no-local

dr render chair.glb --check
"""


def render(
    scene: o.Scene,
    output: o.Output = None,
    samples: o.Samples = None,
    size: o.Size = None,
    region: o.RegionOf = None,
    camera: o.Camera = None,
    seed: o.Seed = None,
    max_depth: o.MaxDepth = None,
    pixel_filter: o.Filter = None,
    no_default_light: o.NoDefaultLight = False,
    channels: o.Channels = None,
    view_transform: o.ViewTransform = None,
    exposure: o.Exposure = None,
    bucket_log: o.BucketLog = None,
    server: o.Server = None,
    local: o.Local = None,
    local_servers: o.LocalServers = None,
    threads: o.Threads = None,
    bucket_size: o.BucketSize = None,
    bucket_order: o.BucketOrder = None,
    settings: o.SettingsFile = None,
    check: o.Check = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> int:
    """Render a scene to a file, on this machine or on render servers."""
    picture: dict[str, Any] = {
        "samples": samples,
        "camera": camera,
        "seed": seed,
        "max_depth": max_depth,
        "pixel_filter": pixel_filter,
        "region": None if region is None else parse_region(region),
        "default_light": False if no_default_light else None,
        **_size(size),
    }
    process = {
        "local_servers": local_servers,
        "threads": threads,
        "bucket_order": bucket_order,
        "bucket_size": None if bucket_size is None else parse_bucket_size(bucket_size),
    }
    request = Request(
        scene=scene,
        picture=_given(picture),
        view=_given({"view_transform": view_transform, "exposure": exposure}),
        channels=tuple(Channel) if channels is None else parse_channels(channels.split(",")),
        outputs=tuple(output or [Path(_stem(scene.name) + ".exr")]),
        servers=tuple(server or ()),
        local=local,
        settings=load_settings(settings, os.environ, process).values,
    )
    if check:
        from dr.cli.check import check_request

        return check_request(request, json)
    from dr.cli.run import run_request

    return run_request(request, bucket_log=bucket_log, json=json, quiet=quiet, verbose=verbose)


def _size(text: str | None) -> dict[str, int]:
    if text is None:
        return {}
    width, height = parse_size(text)
    return {"width": width, "height": height}


def _given(values: dict[str, Any]) -> dict[str, Any]:
    """What the user gave: None means not given."""
    return {name: value for name, value in values.items() if value is not None}


def _stem(name: str) -> str:
    return name.removesuffix(".toml").removesuffix(".scene").removesuffix(Path(name).suffix) or "render"
