"""`python -m tests.support.target_digest SCENE`: renders with whatever target numba was told, prints digest and target.

Prints one JSON line: the digest of all channels, the CPU name and features that numba compiled for, and which wide
registers the compiled code really uses. Meant for a compile cache of its own, because only fresh code can be looked at.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from pathlib import Path

from workers.prepare.warmup import use_kernel_cache

use_kernel_cache()

from dr.scene.model import RenderSettings  # noqa: E402
from tests.support.rendering import render  # noqa: E402
from workers.kernels.bucket import render_bucket  # noqa: E402


def registers(assembly: str) -> list[str]:
    """The kinds of vector register and the fused instructions in the code."""
    found = {name for name in ("xmm", "ymm", "zmm") if re.search(rf"%{name}\d", assembly)}
    found |= {"fma"} if re.search(r"\bvfn?m(add|sub)", assembly) else set()
    return sorted(found)


def main(scene: str) -> None:
    picture = render(Path(scene), RenderSettings(width=48, height=27, samples=8))
    digest = hashlib.sha256(b"".join(name.encode() + picture[name].tobytes() for name in sorted(picture)))
    (compiled,) = render_bucket.overloads.values()  # type: ignore[attr-defined]
    target = compiled.library.codegen
    print(
        json.dumps(
            {
                "digest": digest.hexdigest(),
                "target": list(target.magic_tuple()),
                "registers": registers(compiled.library.get_asm_str()),
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1])
