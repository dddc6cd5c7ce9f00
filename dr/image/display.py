"""How linear radiance is shown on an sRGB screen. Knows view transforms and exposure; knows no file and no alpha.

The transforms are those of a configuration that OpenColorIO carries in itself, named by its full version so that a
newer library shows the same picture.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dr.errors import BadInput, did_you_mean
from dr.scene.model import F32, ViewSettings

CONFIG = "cg-config-v4.0.0_aces-v2.0_ocio-v2.5"
DISPLAY = "sRGB - Display"
SCENE_SPACE = "Linear Rec.709 (sRGB)"
RAW = "Raw"  # the numbers as they are, for data and for checks by eye
VIEWS = {
    "Standard": "Un-tone-mapped",  # the sRGB curve alone: what glTF's sample viewers show without tone mapping
    "ACES 2.0": "ACES 2.0 - SDR 100 nits (Rec.709)",
    RAW: None,
}
MOST_STOPS = 64  # either way
BRIGHTEST = np.float32(65504)  # ACES turns an infinity into black


def check_view(name: str) -> str:
    """The view transform's own spelling of `name`, whatever its case; BadInput lists the names there are."""
    for view in VIEWS:
        if view.lower() == name.strip().lower():
            return view
    raise BadInput(
        f"view transform: expected one of {', '.join(VIEWS)}, found {name[:80]!r}{did_you_mean(name, VIEWS)}"
    )


def check_exposure(stops: float) -> None:
    """BadInput for a number of stops that no float32 picture survives."""
    if not abs(stops) <= MOST_STOPS:  # as written, it refuses NaN, too
        raise BadInput(f"exposure: expected stops from -{MOST_STOPS} to {MOST_STOPS}, found {stops}")


def to_display(rgb: F32, view: ViewSettings) -> F32:
    """Linear Rec. 709 [height, width, 3] as display values 0..1, after `exposure` stops. NaN becomes 0."""
    import PyOpenColorIO  # here, because only a .png or .jpg needs it

    name = VIEWS[check_view(view.view_transform)]
    exposed = rgb * np.float32(2.0**view.exposure)
    shown: F32 = np.ascontiguousarray(np.fmin(np.fmax(exposed, 0), BRIGHTEST), np.float32)
    if name is not None:
        config = PyOpenColorIO.Config.CreateFromBuiltinConfig(CONFIG)
        transform = PyOpenColorIO.DisplayViewTransform(src=SCENE_SPACE, display=DISPLAY, view=name)
        config.getProcessor(transform).getDefaultCPUProcessor().applyRGB(shown)
    return np.clip(shown, 0, 1)


def to_bytes(display: F32) -> npt.NDArray[np.uint8]:
    """Display values or alpha 0..1 as 8 bits, to the nearest."""
    return (display * np.float32(255) + np.float32(0.5)).astype(np.uint8)
