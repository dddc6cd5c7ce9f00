"""What `ps` shows of a server."""

import subprocess
import sys

import pytest

from workers.server.title import long_title, short_title
from workers.server.words import ServeOptions


@pytest.mark.parametrize(
    ("options", "long", "short"),
    [
        ({"port": 20204}, "dr:20204", "dr:20204"),
        ({"port": 20204, "nodes": (2, 3)}, "dr:20204 node 2-3", "dr:20204 n2-3"),
        ({"port": 65535, "nodes": (0, 2)}, "dr:65535 node 0,2", "dr:65535 n0,2"),
        ({"port": 20204, "nodes": (12, 14, 16)}, "dr:20204 node 12,14,16", "dr:20204 n12,1+"),
    ],
)
def test_a_title_tells_port_and_node(options, long, short):
    found = ServeOptions(**options)
    assert (long_title(found), short_title(found)) == (long, short)


def test_a_local_server_has_its_name():
    assert short_title(ServeOptions(endpoint="ipc:///run/dr/1", name="local-1")) == "dr:local-1"
    assert short_title(ServeOptions(endpoint="ipc:///run/dr/1")) == "dr:1"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_system_shows_the_title():
    program = (
        "from workers.server.title import show_title; from workers.server.words import ServeOptions\n"
        "show_title(ServeOptions(port=20204, nodes=(2, 4)))\n"
        "print(open('/proc/self/comm').read() + open('/proc/self/cmdline').read().rstrip(chr(0)))"
    )
    words = [sys.executable, "-c", program]
    assert subprocess.check_output(words, text=True) == "dr:20204 n2,4\ndr:20204 node 2,4\n"
