"""`dr render SCENE`: turns words into a request. Decides nothing about rendering."""

from __future__ import annotations

import os
from pathlib import Path

from dr.cli import options as o
from dr.cli.words import parse_bucket_order, parse_bucket_size, parse_region, parse_seconds, parse_size
from dr.client.request import make_request

EXAMPLES = """\
Examples:

dr render chair.glb -o chair.exr -o chair.png --samples 256 --size 1920x1080

dr render chair.scene.toml --region 100,50,320,240 --camera closeup

dr render chair.glb --server 127.0.0.1:20204 --no-local

dr render walk.glb --frames 1-100 -o walk.####.exr --skip-existing

dr render chair.glb -o chair.exr --resume

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
    frames: o.Frames = None,
    skip_existing: o.SkipExisting = False,
    resume: o.Resume = False,
    autosave: o.Autosave = None,
    server: o.Server = None,
    listen: o.Listen = None,
    local: o.Local = None,
    local_servers: o.LocalServers = None,
    threads: o.Threads = None,
    bucket_size: o.BucketSize = None,
    bucket_order: o.BucketOrder = None,
    wait: o.Wait = None,
    time_limit: o.TimeLimit = None,
    insecure: o.Insecure = False,
    settings: o.SettingsFile = None,
    check: o.Check = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> int:
    """Render a scene to a file, on this machine or on render servers."""
    options = {
        "outputs": output or [_default_output(scene)],
        "samples": samples,
        "size": None if size is None else parse_size(size),
        "region": None if region is None else parse_region(region),
        "camera": camera,
        "seed": seed,
        "max_depth": max_depth,
        "pixel_filter": pixel_filter,
        "default_light": False if no_default_light else None,
        "channels": None if channels is None else channels.split(","),
        "view_transform": view_transform,
        "exposure": exposure,
        "servers": server,
        "listen": listen,
        "local": local,
        "local_servers": local_servers,
        "threads": threads,
        "bucket_size": None if bucket_size is None else parse_bucket_size(bucket_size),
        "bucket_order": None if bucket_order is None else parse_bucket_order(bucket_order),
        "settings": settings,
        "insecure": insecure,
        "bucket_log": bucket_log,
        "frames": frames,
        "skip_existing": skip_existing,
        "resume": resume,
        "autosave_s": None if autosave is None else parse_seconds(autosave, "--autosave"),
        "time_limit_s": None if time_limit is None else parse_seconds(time_limit, "--time-limit"),
        "wait_s": None if wait is None else parse_seconds(wait, "--wait"),
    }
    request = make_request(scene, options, os.environ)
    if check:
        from dr.cli.check import check_request

        return check_request(request, json)
    from dr.cli.run import run_request

    return run_request(request, json=json, quiet=quiet, verbose=verbose)


def _default_output(scene: Path) -> Path:
    """`chairs/chair.scene.toml` -> `chair.exr`, in the current folder."""
    name = scene.name.removesuffix(".toml").removesuffix(".scene")
    return Path((Path(name).stem or "render") + ".exr")
