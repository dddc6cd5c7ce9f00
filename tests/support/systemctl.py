"""A `systemctl` that keeps no service and answers as a test wishes."""

from __future__ import annotations

import re
import shutil
from pathlib import Path


class FakeSystemctl:
    """The first `systemctl` on PATH: notes its words and answers as told, by files named like its verbs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        script = folder / "systemctl"
        script.write_text(f"""#!{shutil.which("sh")}
cd '{folder}' || exit 99
user=; for word in "$@"; do
  case "$word" in --user) user='--user ';; --no-*) ;; --property=*) verb=${{word#--property=}};;
    *) verb=${{verb:-$word}}; words="$words $word";; esac
done
echo "$user${{words# }}" >> calls
[ -e "$verb.out" ] && cat "$verb.out"
[ -e "$verb.next" ] && mv "$verb.next" "$verb.out"
[ "$verb" = restart ] && [ ! -e restart.fails ] && echo active > is-active.out
[ -e "$verb.fails" ] || exit 0
cat "$verb.fails" >&2; [ -e "$verb.once" ] && rm "$verb.fails"; exit 1
""")
        script.chmod(0o755)

    def answer(self, verb: str, out: str) -> None:
        """To a verb, or to `show` of a property. A successful `restart` makes the service active."""
        (self.folder / f"{verb}.out").write_text(out + "\n")

    def answer_then(self, verb: str, out: str) -> None:
        """The answer after the next one."""
        (self.folder / f"{verb}.next").write_text(out + "\n")

    def refuse(self, verb: str, error: str, once: bool = False) -> None:
        (self.folder / f"{verb}.fails").write_text(error + "\n")
        if once:
            (self.folder / f"{verb}.once").touch()

    def calls(self) -> list[str]:
        """What it was asked since the last time, questions left out."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [line for line in lines if not re.search(r"\bis-|\bshow", line)]
