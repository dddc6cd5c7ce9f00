"""Gathers what a service of the spawner is made of: program, account, folders, variables. Installs nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import platformdirs
from msgspec.structs import replace

from dr.errors import BadInput
from dr.protocol.messages import EngineKind
from dr.settings import SETTINGS_FILE, LoadedSettings, as_environment, variable_name

if TYPE_CHECKING:
    from dr.cli.spawner_options import Wanted
    from dr.keys.security import Security
    from workers.numa.plan import Plan
    from workers.spawner.service import Service


class Account(NamedTuple):
    """Who a service runs as."""

    name: str
    group: str
    home: Path
    uid: int
    gid: int


class Order(NamedTuple):
    """What is to be installed, and what it was made of."""

    service: Service
    account: Account
    plan: Plan
    settings: LoadedSettings
    security: Security

    @property
    def variables(self) -> list[str]:
        """The `DR_` variables of this shell that decided a setting or name the farm key."""
        from dr.keys.folder import VARIABLE

        named = {VARIABLE} & self.service.environment.keys()
        return sorted(named | {origin for origin in self.settings.origins.values() if origin.startswith("DR_")})


def make_order(wanted: Wanted, system: bool, account: str | None) -> Order:
    """Raises BadInput or Refused for all that a spawner with these options would refuse, but for taken ports."""
    from dr.cli.spawner_options import plan_servers
    from workers.server.dialout_target import parse_targets
    from workers.spawner.checks import check_servers
    from workers.spawner.service import Service

    person = find_account(account, system)
    loaded = replace(wanted, settings=_settings_file(wanted, system, person)).load()
    plan = plan_servers(wanted, loaded)
    security = _security(person, wanted.insecure)
    check_servers((), loaded.values.bind, security)
    parse_targets(wanted.dial, security)
    if plan.servers[0].engine is EngineKind.RT:
        raise BadInput("-engine=rt: the interactive engine does not exist yet; leave -engine out")
    program, variables = own_program()
    folders, writable = _folders(loaded, system)
    service = Service(
        command=(*program, "spawner", *wanted.words()),
        system=system,
        account=person.name,
        group=person.group,
        environment={**variables, **_variables(loaded, system), **folders},
        writable=writable,
    )
    return Order(service, person, plan, loaded, security)


def _security(person: Account, insecure: bool) -> Security:
    """Another account's keys are not ours to judge: whether they are enough shows when the service starts."""
    from dr.keys.folder import default_folder, load_keys
    from dr.keys.security import Security

    if insecure or person.uid != os.geteuid():
        return Security(insecure=True)
    return Security(ring=load_keys(os.environ, default_folder()))


def find_account(name: str | None, system: bool) -> Account:
    """The account of a service; without a name the one that asks, also through sudo. Raises BadInput."""
    import grp
    import pwd

    me = pwd.getpwuid(os.geteuid()).pw_name
    if name not in (None, me) and not system:
        raise BadInput(f"--account {name}: a service of --user runs as {me}; one of --system may run as any account")
    asked = name or (os.environ.get("SUDO_USER") if system else None) or me
    try:
        entry = pwd.getpwnam(asked)
        group = grp.getgrgid(entry.pw_gid).gr_name
    except KeyError:
        raise BadInput(f"--account {asked}: this machine has no such account; `useradd --system` makes one") from None
    return Account(asked, group, Path(entry.pw_dir), entry.pw_uid, entry.pw_gid)


def own_program() -> tuple[tuple[str, ...], dict[str, str]]:
    """This very program by its absolute path, and the variables without which it would not be found."""
    script = Path(sys.argv[0])
    if script.stem == "dr" and script.is_file():
        return (os.path.abspath(script),), {}
    return (sys.executable, "-P", "-m", "dr.cli"), {"PYTHONPATH": str(Path(__file__).parents[2])}


def make_folders(paths: Iterable[str], account: Account) -> None:
    """Makes those that are missing, private to the account. Raises BadInput."""
    for path in map(Path, paths):
        if path.exists():
            continue
        try:
            path.mkdir(mode=0o700, parents=True)
            os.chown(path, account.uid, account.gid)
        except OSError as error:
            raise BadInput(f"{path}: cannot make this folder for {account.name}: {error.strerror}") from error


def _settings_file(wanted: Wanted, system: bool, person: Account) -> Path | None:
    """The file that the service will read: a system service has its account's, not that of whoever installs it."""
    if wanted.settings or not system:
        return wanted.settings
    own = person.home / ".config/dr" / SETTINGS_FILE
    return own if own.is_file() else Path(os.devnull)


def _folders(loaded: LoadedSettings, system: bool) -> tuple[dict[str, str], tuple[str, ...]]:
    """Variables that lead to all that is written, and those of the folders that systemd does not make by itself."""
    from workers.spawner.service import SYSTEM_CACHE, SYSTEM_LOGS

    cache = SYSTEM_CACHE if system else platformdirs.user_cache_path("dr", appauthor=False)
    usual = {"log_folder": SYSTEM_LOGS, "kernel_cache": cache / "kernels"} if system else {}
    places = {
        name: usual[name] if name in usual and loaded.origins[name] == "default" else getattr(loaded.values, name)
        for name in ("log_folder", "kernel_cache")
    }
    made = (SYSTEM_CACHE, SYSTEM_LOGS) if system else ()
    absolute = {name: path.absolute() for name, path in places.items()}
    writable = [path for path in (cache, *absolute.values()) if not any(path.is_relative_to(other) for other in made)]
    variables = {variable_name(name): str(path) for name, path in absolute.items()}
    return {"XDG_CACHE_HOME": str(cache.parent), **variables}, tuple(dict.fromkeys(map(str, writable)))


def _variables(loaded: LoadedSettings, system: bool) -> dict[str, str]:
    """Settings and the farm key that variables of this shell decide: the service runs as it was planned here."""
    from dr.keys.folder import VARIABLE

    values = as_environment(loaded.values)
    kept = {variable_name(name): origin for name, origin in loaded.origins.items()}
    config = os.environ.get("XDG_CONFIG_HOME")
    place = {} if system or not config else {"XDG_CONFIG_HOME": os.path.abspath(config)}
    farm_key = os.environ.get(VARIABLE)
    keys = {VARIABLE: str(Path(farm_key).expanduser().absolute())} if farm_key else {}
    return {**{name: values[name] for name, origin in kept.items() if name == origin}, **place, **keys}
