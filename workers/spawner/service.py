"""The spawner as a service that starts at boot: what systemd, launchd and Windows are told. Knows no server.

The texts are pure functions of a Service; the rest runs `systemctl`. The unit lets the service write its own cache and
log folders and nothing else. It leaves MemoryDenyWriteExecute out: numba writes the code that it executes.
"""

from __future__ import annotations

import plistlib
import re
import shutil
import subprocess
from pathlib import Path
from time import monotonic, sleep

import platformdirs
from msgspec import Struct
from msgspec.structs import replace

from dr.errors import BadInput

UNIT = "dr-spawner.service"
LABEL = "dr-spawner"  # what launchd and Windows call it
SYSTEM_UNITS = Path("/etc/systemd/system")
SYSTEM_CACHE = Path("/var/cache/dr")  # systemd makes both for CacheDirectory=dr and LogsDirectory=dr
SYSTEM_LOGS = Path("/var/log/dr")
SYSTEMCTL_S = 60.0  # it waits until the service has started or stopped
SETTLE_S = 3.0  # a spawner that refuses its options or its ports has ended by then
LOOK_S = 0.1
NO_SANDBOX = ("217", "226")  # exit statuses USER and NAMESPACE: the system lets no user make a sandbox

_PLAIN = re.compile(r"[A-Za-z0-9_@:=,./+-]+")


class Service(Struct, frozen=True, kw_only=True):
    """What a service is made of. A system service runs as `account`, another one as the user who owns it."""

    command: tuple[str, ...]  # an absolute path and its words
    system: bool
    account: str = ""
    group: str = ""
    environment: dict[str, str] = {}
    writable: tuple[str, ...] = ()  # folders besides those that systemd makes
    sandboxed: bool = True


class ServiceState(Struct, frozen=True, kw_only=True):
    """What systemd says: `active` and `enabled` are its own words, such as active, failed, disabled."""

    path: Path
    installed: bool
    active: str = ""
    enabled: str = ""

    @property
    def is_alive(self) -> bool:
        """Whether it runs, or will as soon as systemd starts it again."""
        return self.active in ("active", "activating", "reloading")


def unit_text(service: Service) -> str:
    """The unit for systemd."""
    parts = {
        "Unit": ["Description=Render servers of the dr farm", *(_NETWORK if service.system else [])],
        "Service": [*_process(service), *(_sandbox(service) if service.sandboxed else _UNPRIVILEGED)],
        "Install": [f"WantedBy={'multi-user' if service.system else 'default'}.target"],
    }
    sections = [f"[{title}]\n" + "\n".join(lines) for title, lines in parts.items()]
    return "# Made by `dr spawner install`; `dr spawner uninstall` removes it.\n" + "\n\n".join(sections) + "\n"


def _process(service: Service) -> list[str]:
    program, *words = service.command
    arguments = [
        _quote(word).replace("$", "$$") for word in words
    ]  # systemd replaces no variable in the program's path
    account = [f"User={service.account}", f"Group={service.group}"] if service.system else []
    variables = [f"Environment={_quote(f'{name}={value}')}" for name, value in service.environment.items()]
    return [
        "Type=exec",
        f"ExecStart={' '.join([_quote_path(program), *arguments])}",
        "ExecReload=/bin/kill -HUP $MAINPID",
        "Restart=on-failure",
        "RestartSec=5",
        "KillMode=mixed",  # the spawner alone is asked to stop; what is left after that is killed
        "TimeoutStopSec=10",
        "OOMPolicy=continue",  # a server that needed too much memory is the spawner's to restart
        "LimitNOFILE=65536",
        *account,
        *variables,
    ]


def _sandbox(service: Service) -> list[str]:
    folders = (
        [f"ReadWritePaths={' '.join(_quote_path(path, '-') for path in service.writable)}"] if service.writable else []
    )
    more = ["LogsDirectory=dr", "LogsDirectoryMode=0750", *_LOCKED] if service.system else []
    return [
        *_UNPRIVILEGED,
        "ProtectSystem=strict",
        "ProtectHome=read-only",
        "PrivateTmp=yes",
        "CacheDirectory=dr",
        "CacheDirectoryMode=0700",
        *more,
        *folders,
    ]


_NETWORK = ["Wants=network-online.target", "After=network-online.target"]
_UNPRIVILEGED = ["NoNewPrivileges=yes"]
_LOCKED = [  # a server needs no capability, no setuid file and no kernel setting
    "CapabilityBoundingSet=",
    "RestrictSUIDSGID=yes",
    "LockPersonality=yes",
    "ProtectKernelTunables=yes",
    "ProtectKernelModules=yes",
    "ProtectControlGroups=yes",
]


def _quote(word: str) -> str:
    """A word as systemd reads it back. Raises BadInput for what a line cannot hold."""
    if not word.isprintable():
        raise BadInput(f"expected printable letters in what a service is told, found {word!r}")
    word = word.replace("%", "%%")
    return word if _PLAIN.fullmatch(word) else '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _quote_path(path: str, prefix: str = "") -> str:
    """The same where systemd knows no escapes. Raises BadInput for what cannot be said there."""
    if set(path) & set("\"'\\"):
        raise BadInput(f"expected a path without quotes and backslashes for systemd, found {path}")
    return _quote(prefix + path)


def launchd_text(service: Service) -> str:
    """The same for macOS: a property list."""
    facts = {
        "Label": LABEL,
        "ProgramArguments": [*service.command],
        "EnvironmentVariables": service.environment,
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": 5,
        "ExitTimeOut": 10,
        **({"UserName": service.account} if service.system else {}),
    }
    return plistlib.dumps(facts, sort_keys=False).decode()


def windows_text(service: Service) -> str:
    """The same for Windows: commands for an administrator's prompt, whose variables are the machine's."""
    command = subprocess.list2cmdline(service.command).replace('"', '\\"')
    account = f" /RU {subprocess.list2cmdline([service.account])}" if service.account else ""
    variables = [
        f'setx {name} "{value}"{" /M" if service.system else ""}' for name, value in service.environment.items()
    ]
    create = f'schtasks /Create /TN {LABEL} /SC ONSTART{account} /RL LIMITED /TR "{command}"'
    return "\n".join([*variables, create, f"schtasks /Run /TN {LABEL}"]) + "\n"


def unit_path(system: bool) -> Path:
    return (SYSTEM_UNITS if system else platformdirs.user_config_path("systemd") / "user") / UNIT


def service_state(system: bool) -> ServiceState:
    """Never raises: where systemd does not answer, its words are empty."""
    path = unit_path(system)
    if not path.exists() or not shutil.which("systemctl"):
        return ServiceState(path=path, installed=path.exists())
    active, enabled = (_run(system, word, UNIT).stdout.strip() for word in ("is-active", "is-enabled"))
    return ServiceState(path=path, installed=True, active=active, enabled=enabled)


def main_process(system: bool) -> int:
    """The process that systemd started for the service; 0 where there is none now."""
    found = _run(system, "show", "--property=MainPID", "--value", UNIT).stdout.strip()
    return int(found) if found.isdecimal() else 0


def wait_settled(system: bool) -> ServiceState:
    """How it is a moment after its start: what cannot be is refused by then, and waits to be started again."""
    deadline = monotonic() + SETTLE_S
    while (state := service_state(system)).active == "active" and monotonic() < deadline:
        sleep(LOOK_S)
    return state


def check_systemd(system: bool) -> None:
    """Raises BadInput where there is no systemd that could keep a service for us."""
    if not shutil.which("systemctl"):
        raise BadInput(f"expected systemd, found no systemctl on this machine; {_OTHERWISE}")
    done = _run(system, "show-environment")
    if done.returncode:
        raise BadInput(f"expected systemd to answer, found: {_words(done, lines=1)}; {_OTHERWISE}")


_OTHERWISE = "start `dr spawner` by what starts programs here: `dr spawner install --print` shows how it is meant"


def install_service(service: Service) -> str:
    """Writes, enables and starts it, anew if it runs already; gives a line on what could not be had, or nothing."""
    _write(service)
    systemctl(service.system, "daemon-reload")
    systemctl(service.system, "enable", UNIT)
    try:
        systemctl(service.system, "restart", UNIT)
    except BadInput:
        if service.system or _exit_status() not in NO_SANDBOX:
            raise
        _write(replace(service, sandboxed=False))
        systemctl(service.system, "daemon-reload")
        systemctl(service.system, "restart", UNIT)
        return "this system lets no user make a sandbox: the service runs without one; --system has it"
    return ""


def uninstall_service(system: bool) -> None:
    """Stops and removes it. Raises BadInput when systemd or the file system refuses."""
    systemctl(system, "disable", "--now", UNIT)
    try:
        unit_path(system).unlink()
    except OSError as error:
        raise BadInput(f"cannot remove {unit_path(system)}: {error.strerror}") from error
    systemctl(system, "daemon-reload")


def systemctl(system: bool, *words: str) -> None:
    """Raises BadInput with what systemctl said against it."""
    done = _run(system, *words)
    if done.returncode:
        raise BadInput(f"systemctl {' '.join(words)} failed: {_words(done)}")


def _exit_status() -> str:
    return _run(False, "show", "--property=ExecMainStatus", "--value", UNIT).stdout.strip()


def _run(system: bool, *words: str) -> subprocess.CompletedProcess[str]:
    command = ["systemctl", *([] if system else ["--user"]), "--no-pager", "--no-ask-password", *words]
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SYSTEMCTL_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))


def _words(done: subprocess.CompletedProcess[str], lines: int | None = None) -> str:
    """What it said, or the first lines of it, in one line."""
    said = " ".join(" ".join(done.stderr.splitlines()[:lines]).split())
    return said.rstrip(".") or f"status {done.returncode}"


def _write(service: Service) -> None:
    path = unit_path(service.system)
    new = path.with_suffix(".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(unit_text(service), encoding="utf-8")
        new.replace(path)
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror}; a system service needs root (sudo)") from error
