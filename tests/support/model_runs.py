"""How long the machines of hypothesis play: `DR_MODEL_RUNS=10000 pytest tests/farm_model` for a long night."""

from __future__ import annotations

import os

RUNS = int(os.environ.get("DR_MODEL_RUNS", "1000"))
