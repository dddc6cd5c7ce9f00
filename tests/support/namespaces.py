"""Machines of a small network that tests make themselves: network namespaces, joined by cables (veth) that can be cut.

Needs root and iproute2. A machine is a namespace and a folder: what runs there sees its own interfaces, and the files
and keys of a user of its own. Nothing outside the test can be reached from there, or reaches in.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.farm import DEADLINE_S, ROOT, environment
from workers.prepare.folders import user_folder

_PREFIX = "dr-test-"
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Machine:
    """`address` is its own on the cable to the hub, `hub` is the hub's there; the hub's are loopback."""

    namespace: str
    folder: Path
    address: str = "127.0.0.1"
    address6: str = "::1"
    hub: str = "127.0.0.1"
    hub6: str = "::1"

    def start(
        self, *words: object, module: str = "tests.support.fake_dr", extra: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """`dr WORDS` there, in a process group of its own, with these variables more; its output is ours to read."""
        command = [*_inside(self.namespace), sys.executable, "-m", module, *map(str, words)]
        pipe = subprocess.PIPE
        env = {**self.environment(), **(extra or {})}
        return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=env, cwd=ROOT, process_group=0)

    def run(
        self, *words: object, module: str = "tests.support.fake_dr", within_s: float = DEADLINE_S
    ) -> subprocess.CompletedProcess[str]:
        """`dr WORDS` there, to its end."""
        with self.start(*words, module=module) as process:
            try:
                out, err = process.communicate(timeout=within_s)
            finally:
                process.kill()
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def environment(self) -> dict[str, str]:
        """A user of its own, who has no settings and no keys but those of the test, and our compiled kernels."""
        kernels = os.environ.get("DR_KERNEL_CACHE") or str(user_folder("kernels"))
        plain = {name: value for name, value in environment(self.folder).items() if name != "DR_FARM_KEY_FILE"}
        return {**plain, "DR_KERNEL_CACHE": kernels}

    def forget_keys(self) -> None:
        shutil.rmtree(self.folder / "xdg_config_home" / "dr" / "keys")

    def listens_on(self, port: int) -> set[str]:
        """The local addresses of listening TCP sockets there, as the kernel shows them."""
        rows = _ip_netns(self.namespace, "ss", "-Htln").splitlines()
        places = [row.split()[3].rpartition(":") for row in rows]
        return {host for host, _, found in places if found == str(port)}

    def cut_cable(self) -> None:
        """From now on nothing arrives, in either direction, and nobody is told."""
        _set_cable(self.namespace, "down")

    def mend_cable(self) -> None:
        _set_cable(self.namespace, "up")


@contextmanager
def star(folder: Path, *names: str) -> Iterator[list[Machine]]:
    """Machines of these names, the first in the middle, with a cable to each of the others.

    Skips the test where namespaces cannot be made. All is gone afterwards, whatever happened.
    """
    _need_namespaces()
    with ExitStack() as stack:
        spaces = [stack.enter_context(_namespace()) for _ in names]
        machines = [Machine(space, _home(folder, name)) for space, name in zip(spaces, names, strict=True)]
        for number, arm in enumerate(machines[1:], 1):
            machines[number] = _lay_cable(machines[0], arm, number)
        yield machines


@dataclass(frozen=True)
class Switch:
    """Joins machines with a cable each: what happens to one cable is not seen at the others."""

    namespace: str
    plugs: Mapping[str, str]  # its end of each machine's cable, by the machine's address

    def unplug(self, machine: Machine) -> None:
        """From now on nothing arrives there and nothing from there arrives; its connections stay what they are."""
        _ip("-n", self.namespace, "link", "set", self.plugs[machine.address], "down")

    def plug(self, machine: Machine) -> None:
        _ip("-n", self.namespace, "link", "set", self.plugs[machine.address], "up")


@contextmanager
def switched(folder: Path, *names: str) -> Iterator[tuple[Switch, list[Machine]]]:
    """Machines of these names with one network, each reaching each. Skips and cleans up as `star` does."""
    _need_namespaces()
    with ExitStack() as stack:
        middle = stack.enter_context(_namespace())
        _ip("-n", middle, "link", "add", "bridge", "type", "bridge")
        _ip("-n", middle, "link", "set", "bridge", "up")
        machines, plugs = [], {}
        for number, name in enumerate(names, 1):
            machine = Machine(stack.enter_context(_namespace()), _home(folder, name), f"10.77.0.{number}")
            plugs[machine.address] = _plug_in(middle, machine, number)
            machines.append(machine)
        yield Switch(middle, plugs), machines


def lose_words(speaker: Machine, hearer: Machine) -> None:
    """What one says to the other is lost from now on, and what the other says arrives: nobody is told.

    The speaker writes a hardware address that nobody has.
    """
    nobody = "02:00:00:00:00:00"
    _ip(
        "-n", speaker.namespace, "neigh", "replace", hearer.address, "lladdr", nobody, "dev", "eth0", "nud", "permanent"
    )


def carry_words(speaker: Machine, hearer: Machine) -> None:
    """Ends `lose_words`."""
    _ip("-n", speaker.namespace, "neigh", "del", hearer.address, "dev", "eth0")


def _plug_in(middle: str, machine: Machine, number: int) -> str:
    """`eth0` of the machine to the bridge; gives the name of the bridge's end."""
    plug = f"plug{number}"
    _ip("-n", machine.namespace, "link", "add", "eth0", "type", "veth", "peer", "name", plug, "netns", middle)
    _ip("-n", middle, "link", "set", plug, "master", "bridge")
    _ip("-n", middle, "link", "set", plug, "up")
    _ip("-n", machine.namespace, "address", "add", f"{machine.address}/24", "dev", "eth0")
    _ip("-n", machine.namespace, "link", "set", "eth0", "up")
    return plug


@contextmanager
def _namespace() -> Iterator[str]:
    name = f"{_PREFIX}{os.getpid()}-{next(_numbers)}"
    _ip("netns", "add", name)
    try:
        _ip("-n", name, "link", "set", "lo", "up")
        yield name
    finally:
        _ip("netns", "delete", name)  # with its end of each cable, and so with the other end


def _lay_cable(hub: Machine, arm: Machine, number: int) -> Machine:
    """`eth0` of the arm to `cable NUMBER` of the hub; gives the arm with its addresses."""
    port = f"cable{number}"
    _ip("-n", arm.namespace, "link", "add", "eth0", "type", "veth", "peer", "name", port, "netns", hub.namespace)
    net, net6 = f"10.77.{number}", f"fd00:77:{number}:"
    for space, device, host in ((hub.namespace, port, 1), (arm.namespace, "eth0", 2)):
        _ip("-n", space, "address", "add", f"{net}.{host}/24", "dev", device)
        # no duplicate address detection: the address is usable at once
        _ip("-n", space, "address", "add", f"{net6}:{host}/64", "dev", device, "nodad")
        _ip("-n", space, "link", "set", device, "up")
    return Machine(arm.namespace, arm.folder, f"{net}.2", f"{net6}:2", f"{net}.1", f"{net6}:1")


def _set_cable(namespace: str, state: str) -> None:
    _ip("-n", namespace, "link", "set", "eth0", state)


def _home(folder: Path, name: str) -> Path:
    home = folder / name
    home.mkdir(exist_ok=True)  # with the keys that the test has put there
    return home


def _need_namespaces() -> None:
    if shutil.which("ip") is None:
        pytest.skip("needs `ip` of iproute2")
    if os.geteuid() != 0:
        pytest.skip("needs root, to make network namespaces")
    _remove_left_ones()
    probe = f"{_PREFIX}{os.getpid()}-{next(_numbers)}"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"network namespaces cannot be made here: {made.stderr.strip()}")
    _ip("netns", "delete", probe)


def _remove_left_ones() -> None:
    """Of test processes that were killed: a name holds the id of its maker."""
    for line in _ip("netns", "list").splitlines():
        name = line.split()[0]
        maker = name.removeprefix(_PREFIX).partition("-")[0]
        if name.startswith(_PREFIX) and not Path("/proc", maker).exists():
            _ip("netns", "delete", name)


def _inside(namespace: str) -> Sequence[str]:
    return "ip", "netns", "exec", namespace


def _ip_netns(namespace: str, *words: str) -> str:
    return _run(*_inside(namespace), *words)


def _ip(*words: str) -> str:
    return _run("ip", *words)


def _run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr.strip()}"
    return done.stdout
