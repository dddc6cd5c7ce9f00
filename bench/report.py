"""Runs every bench, one after another, into one markdown report. Knows their names; measures nothing.

    python -m bench.report [--quick] [--only kernels] [--write FILE]

Each bench is a process of its own, alone on the machine as far as we can help it. A bench that fails is reported with
its last words, the others go on, and the exit status is 1.
"""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Annotated

import typer

from bench.machine import describe

ROOT = Path(__file__).resolve().parents[1]
LAST_WORDS = 20  # lines of a bench that failed

BENCHES = {
    "kernels": "Rays and trees against Embree",
    "scene": "Pictures against other renderers",
    "broker": "The client's loop",
    "wire": "Tiles on the wire, with and without keys",
    "farm": "The farm against one bare process, start and compile",
    "live": "A farm that lives: joining, failing, stragglers, going on",
    "delay": "Render threads over a long way",
    "journal": "What a journal costs, and going on from it",
}
PARTS = {"farm": ["--part", "overhead", "--part", "start", "--part", "cold", "--part", "announce"]}  # live has its own
QUICK = {
    "kernels": ["--repeats", "1", "--scene", "hall"],
    "scene": ["--rounds", "1", "--scenes", "demo"],
    "broker": ["--buckets", "2000", "--rounds", "1"],
    "wire": ["--rounds", "1", "--seconds", "0.2", "--joins", "5"],
    "farm": ["--rounds", "1", "--frame-s", "3"],
    "live": ["--rounds", "1"],
    "delay": ["--seconds", "3"],
    "journal": ["--seconds", "1"],
}


def head() -> str:
    version = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    commit = version.stdout.strip() or "no repository"
    return f"# Bench, {date.today()}\n\nCommit {commit}. {describe()}.\n"


def run_bench(name: str, words: list[str]) -> tuple[str, bool]:
    """Its section of the report, and whether it went well."""
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", f"bench.{name}", *words], cwd=ROOT, capture_output=True, text=True)
    text = done.stdout.strip()
    if done.returncode:
        last = done.stderr.strip().splitlines()[-LAST_WORDS:]
        text = "\n".join([text, f"FAILED with status {done.returncode}", *last]).strip()
    command = " ".join(["python -m", f"bench.{name}", *words])
    took = f"`{command}`, {time.perf_counter() - begin:.0f} s"
    return f"## {BENCHES[name]}\n\n{took}\n\n```text\n{text}\n```\n", done.returncode == 0


def main(
    only: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(BENCHES)}; repeatable.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Whether they run, not how fast.")] = False,
    write: Annotated[Path | None, typer.Option(help="Writes the report here, too.")] = None,
) -> None:
    """Prints the report, section by section."""
    unknown = set(only or ()) - set(BENCHES)
    if unknown:
        raise typer.BadParameter(f"expected some of {', '.join(BENCHES)}, found {', '.join(sorted(unknown))}")
    sections = [head()]
    print(sections[0], flush=True)
    all_well = True
    for name in only or BENCHES:
        section, well = run_bench(name, [*PARTS.get(name, []), *(QUICK[name] if quick else [])])
        sections.append(section)
        all_well &= well
        print(section, flush=True)
    if write:
        write.write_text("\n".join(sections))
    sys.exit(0 if all_well else 1)


if __name__ == "__main__":
    typer.run(main)
