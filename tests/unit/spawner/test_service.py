"""What systemd, launchd and Windows are told, to the letter."""

from __future__ import annotations

import plistlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dr.errors import BadInput
from workers.spawner.service import Service, launchd_text, unit_text, windows_text

SYSTEM = Service(
    command=("/opt/dr/bin/dr", "spawner", "-numa=4", "--settings=/etc/dr $x%.toml"),
    system=True,
    account="render",
    group="farm",
    environment={"DR_THREADS": "4", "XDG_CACHE_HOME": "/var/cache"},
    writable=("/scratch/dr kernels",),
)
SYSTEM_UNIT = """\
# Made by `dr spawner install`; `dr spawner uninstall` removes it.
[Unit]
Description=Render servers of the dr farm
Wants=network-online.target
After=network-online.target

[Service]
Type=exec
ExecStart=/opt/dr/bin/dr spawner -numa=4 "--settings=/etc/dr $$x%%.toml"
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure
RestartSec=5
KillMode=mixed
TimeoutStopSec=10
OOMPolicy=continue
LimitNOFILE=65536
User=render
Group=farm
Environment=DR_THREADS=4
Environment=XDG_CACHE_HOME=/var/cache
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
CacheDirectory=dr
CacheDirectoryMode=0700
LogsDirectory=dr
LogsDirectoryMode=0750
CapabilityBoundingSet=
RestrictSUIDSGID=yes
LockPersonality=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
ReadWritePaths="-/scratch/dr kernels"

[Install]
WantedBy=multi-user.target
"""
USER_UNIT = """\
# Made by `dr spawner install`; `dr spawner uninstall` removes it.
[Unit]
Description=Render servers of the dr farm

[Service]
Type=exec
ExecStart=/opt/dr/bin/dr spawner
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure
RestartSec=5
KillMode=mixed
TimeoutStopSec=10
OOMPolicy=continue
LimitNOFILE=65536
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
CacheDirectory=dr
CacheDirectoryMode=0700
ReadWritePaths=-/home/ada/.cache/dr -/home/ada/log

[Install]
WantedBy=default.target
"""


def test_the_unit_of_a_system_service_is_this() -> None:
    assert unit_text(SYSTEM) == SYSTEM_UNIT


def test_the_unit_of_a_user_service_is_this() -> None:
    writable = ("/home/ada/.cache/dr", "/home/ada/log")
    assert unit_text(Service(command=("/opt/dr/bin/dr", "spawner"), system=False, writable=writable)) == USER_UNIT


def read_words(line: str) -> list[str]:
    """A line of a unit as systemd reads it (systemd.syntax(7), systemd.service(5)), variables left alone."""
    words = re.findall(r'"(?:[^"\\]|\\.)*"|[^\s"]+', line)
    plain = [re.sub(r"\\(.)", r"\1", word[1:-1]) if word.startswith('"') else word for word in words]
    assert not [word for word in plain if re.search(r"%(?!%)", word.replace("%%", ""))]
    return [word.replace("%%", "%") for word in plain]


PRINTABLE = st.text(min_size=1).filter(str.isprintable)
PATHS = st.text(min_size=1).filter(lambda text: text.isprintable() and not set(text) & set("'\"\\"))


@given(st.lists(PRINTABLE), PRINTABLE, PATHS)
def test_systemd_reads_the_words_that_were_meant(words: list[str], value: str, path: str) -> None:
    unit = unit_text(Service(command=("/bin/dr", *words), system=True, environment={"NAME": value}, writable=(path,)))
    lines = dict(line.partition("=")[::2] for line in unit.splitlines())
    assert [word.replace("$$", "$") for word in read_words(lines["ExecStart"])] == ["/bin/dr", *words]
    assert read_words(lines["Environment"]) == [f"NAME={value}"]
    assert read_words(lines["ReadWritePaths"]) == [f"-{path}"]


def test_a_path_that_systemd_cannot_take_is_refused() -> None:
    for service in (
        Service(command=("/home/o'hara/dr",), system=True),
        Service(command=("/bin/dr",), system=True, writable=("/a\\b",)),
    ):
        with pytest.raises(BadInput, match="expected a path without quotes and backslashes for systemd, found /"):
            unit_text(service)


@pytest.mark.parametrize("word", ["a\nExecStart=/bin/evil", "a\x00", "\udcff", "\x1b[0m"])
def test_a_word_that_a_line_cannot_hold_is_refused(word: str) -> None:
    with pytest.raises(BadInput, match="expected printable letters in what a service is told, found "):
        unit_text(Service(command=("/bin/dr", word), system=False))


def test_a_mac_gets_a_property_list() -> None:
    facts = plistlib.loads(launchd_text(SYSTEM).encode())
    assert facts["ProgramArguments"] == [*SYSTEM.command]
    assert (facts["UserName"], facts["RunAtLoad"], facts["KeepAlive"]) == ("render", True, {"SuccessfulExit": False})


def test_windows_gets_commands() -> None:
    program = r"C:\Program Files\dr\dr.exe"
    service = Service(
        command=(program, "spawner", "-numa=2"), system=True, account="render", environment={"DR_PORT": "1"}
    )
    assert windows_text(service).splitlines() == [
        'setx DR_PORT "1" /M',
        r"schtasks /Create /TN dr-spawner /SC ONSTART /RU render /RL LIMITED "
        r'/TR "\"C:\Program Files\dr\dr.exe\" spawner -numa=2"',
        "schtasks /Run /TN dr-spawner",
    ]
