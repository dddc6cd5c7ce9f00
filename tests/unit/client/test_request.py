"""What a user asks for: sorted, checked, merged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dr.client.request import make_request, merge, parse_channels
from dr.errors import BadInput
from dr.protocol.messages import Channel
from dr.scene.model import PixelFilter, Region, RenderSettings, ViewSettings


def test_options_are_sorted_by_what_they_decide() -> None:
    options = {"samples": 4, "size": (640, 360), "exposure": 1.5, "threads": 3, "servers": ["a:1"], "local": False}
    request = make_request("chair.glb", options, {})
    assert request.scene == Path("chair.glb")
    assert request.picture == {"samples": 4, "width": 640, "height": 360}
    assert request.view == {"exposure": 1.5}
    assert request.settings.threads == 3
    assert (request.servers, request.local) == (("a:1",), False)


def test_an_option_that_is_none_was_not_given() -> None:
    assert make_request("a.glb", {"samples": None, "size": None, "region": None}, {}).picture == {}


def test_the_command_line_wins_over_the_environment() -> None:
    environ = {"DR_THREADS": "7", "DR_BUCKET_SIZE": "32"}
    request = make_request("a.glb", {"threads": 2}, environ)
    assert (request.settings.threads, request.settings.bucket_size) == (2, 32)


def test_an_automatic_bucket_size_wins_over_a_setting() -> None:
    assert make_request("a.glb", {"bucket_size": "auto"}, {"DR_BUCKET_SIZE": "32"}).settings.bucket_size == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sampels": 4}, "unknown option 'sampels' .did you mean 'samples'"),
        ({"samples": 0}, "samples: expected .* found 0"),
        ({"samples": "many"}, "samples: expected .* found 'many'"),
        ({"size": (0, 10)}, "width: expected"),
        ({"size": 10}, "size: expected .width, height. in pixels, found 10"),
        ({"seed": -1}, "seed: expected"),
        ({"region": (0, 0, 0, 4)}, r"region\[2\]: expected `int` >= 1, found \[0, 0, 0, 4\]"),
        ({"region": 5}, "region: expected .* found 5"),
        ({"channels": ["beauty", "smell"]}, "channels: expected names among beauty, .* found 'smell'"),
        ({"channels": []}, "channels: expected at least one"),
        ({"bucket_order": "zigzag"}, "bucket_order"),
        ({"threads": -1}, "threads"),
    ],
)
def test_a_bad_option_is_one_clear_line(options: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words) as caught:
        make_request("a.glb", options, {})
    assert "\n" not in str(caught.value)


def test_one_name_needs_no_list() -> None:
    request = make_request("a.glb", {"channels": "depth", "outputs": "a.exr", "servers": "a:1", "camera": 0}, {})
    assert request.channels == (Channel.DEPTH,)
    assert (request.outputs, request.servers) == ((Path("a.exr"),), ("a:1",))
    assert request.picture == {"camera": "0"}


def test_what_is_given_wins_over_the_scene() -> None:
    scene = RenderSettings(width=100, height=50, samples=16)
    request = make_request("a.glb", {"samples": 4, "pixel_filter": "box", "region": (1, 2, 3, 4)}, {})
    expected = RenderSettings(width=100, height=50, samples=4, pixel_filter=PixelFilter.BOX, region=Region(1, 2, 3, 4))
    assert merge(scene, request.picture) == expected


def test_view_settings_merge_like_the_others() -> None:
    assert merge(ViewSettings(exposure=1.0), {"view_transform": "Raw"}) == ViewSettings(
        view_transform="Raw", exposure=1.0
    )


def test_channels_come_in_the_order_of_the_planes() -> None:
    assert parse_channels(["depth", " Alpha ", "beauty"]) == (Channel.BEAUTY, Channel.ALPHA, Channel.DEPTH)
