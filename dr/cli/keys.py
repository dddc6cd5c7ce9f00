"""`dr keys`: makes keys, shows public halves, says who is admitted. Knows words; the files are changed elsewhere."""

from __future__ import annotations

import getpass
import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from dr.cli.options import Json

if TYPE_CHECKING:
    from dr.keys.changes import Made
    from dr.keys.folder import KeyPlaces

COPY_HINT = (
    "other machines follow when they get the new file: dr keys export-farm FILE here, dr keys import-farm FILE there"
)
EXAMPLES = """\
Examples:

dr keys init

dr keys export-farm farm.key; scp -p farm.key box2: && ssh box2 dr keys import-farm farm.key

dr keys authorize anna 'KEY' (single quotes: a key holds letters that shells obey)
"""

keys_app = typer.Typer(
    help="Keys of this user and of the farm: make, show, copy, admit. docs/threat-model.md says who may do what.",
    no_args_is_help=True,
    epilog=EXAMPLES,
)


class Renewal(StrEnum):
    CLIENT = "client"
    FARM = "farm"


Name = Annotated[str, typer.Argument(metavar="NAME", help="What you call that client.", show_default=False)]
Force = Annotated[bool, typer.Option("--force", metavar="", help="Replace what is there.")]


@keys_app.command("init")
def init(
    renew: Annotated[
        Renewal | None,
        typer.Option(help="Replace this key by a new one, after a loss; the old file is kept.", show_default=False),
    ] = None,
) -> int:
    """Make this user's client key and a farm key. What is there already stays as it is."""
    from dr.keys.changes import init_keys, renew_client, renew_farm

    places = _places()
    if renew is None:
        made = init_keys(places, _user_name())
        for path in (places.client, places.farm):
            print(f"{path}: {'made' if path in made.files else 'is there already, nothing changed'}")
        return 0
    _tell((renew_client if renew is Renewal.CLIENT else renew_farm)(places))
    if renew is Renewal.FARM:
        print("every machine and client of the farm needs the new one; until then its servers and theirs do not meet")
    print(COPY_HINT)
    return 0


@keys_app.command("show")
def show(json: Json = False) -> int:
    """Show public halves and where the files are. Secret halves are never shown."""
    from dr.keys.folder import default_folder, load_keys

    places, ring = _places(), load_keys(os.environ, default_folder())
    farm = "whole" if ring.farm else "public half" if ring.farm_public else None
    facts = {
        "client_key": ring.client.public if ring.client else None,
        "client_file": str(places.client),
        "farm_key": ring.farm_public,
        "farm_file": str(places.farm),
        "farm": farm,
        "clients": {name: public for public, name in sorted(ring.clients.items(), key=lambda item: item[1])},
    }
    if json:
        print(msgspec.json.encode(facts).decode())
        return 0
    print(f"client key: {facts['client_key'] or 'none'}  ({places.client})")
    print(f"farm key:   {ring.farm_public or 'none'}  ({places.farm}{', ' + farm if farm else ''})")
    if ring.farm:
        print(f"clients:    {len(ring.clients)}, see dr keys list")
    if ring.identity is None:
        print("dr keys init makes what is missing")
    elif ring.farm_public:
        print(f"as a client this machine shows the {'client' if ring.identity == ring.client else 'farm'} key")
    return 0


@keys_app.command("list")
def list_clients() -> int:
    """List the clients that the farm key admits: key, then name."""
    from dr.keys.folder import default_folder, load_keys
    from dr.keys.ring import FARM_NAME, require_farm

    ring = load_keys(os.environ, default_folder())
    print(f"{require_farm(ring).public}  {FARM_NAME} (whoever holds the farm key)")
    for public, name in sorted(ring.clients.items(), key=lambda item: item[1]):
        print(f"{public}  {name}")
    return 0


@keys_app.command("authorize")
def authorize_client(
    name: Name,
    key: Annotated[
        str, typer.Argument(metavar="KEY", help="Its public key, from its `dr keys show`.", show_default=False)
    ],
) -> int:
    """Admit a client that does not hold the farm key. Servers of this machine follow within 2 s."""
    from dr.keys.changes import authorize

    if not authorize(_places(), name, key):
        print(f"{name} is admitted already, nothing changed")
        return 0
    print(f"{name} is admitted on this machine within 2 s\n{COPY_HINT}")
    return 0


@keys_app.command("revoke")
def revoke_client(name: Name) -> int:
    """Admit a client no longer. Servers of this machine follow within 2 s."""
    from dr.keys.changes import revoke

    public = revoke(_places(), name)
    print(f"{name} ({public}) is admitted no longer on this machine within 2 s\n{COPY_HINT}")
    return 0


@keys_app.command("export-farm")
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", show_default=False)],
    public: Annotated[
        bool, typer.Option("--public", metavar="", help="Only the public half: for clients, no secret.")
    ] = False,
    force: Force = False,
) -> int:
    """Write the farm key to FILE, for another machine of the farm. Whoever gets that file can pose as any server."""
    from dr.keys.changes import export_farm

    export_farm(_places(), file, public, force)
    kind = (
        "the public half, no secret" if public else "the whole farm key: keep it secret, delete it when it is imported"
    )
    print(f"{file}: {kind}")
    return 0


@keys_app.command("import-farm")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", show_default=False)],
    force: Annotated[
        bool, typer.Option("--force", metavar="", help="Leave the farm that is known here; its key is kept aside.")
    ] = False,
) -> int:
    """Join the farm of FILE, or take its newer list of clients."""
    from dr.keys.changes import import_farm
    from dr.keys.folder import read_client

    places = _places()
    joined = import_farm(places, file, force)
    _tell(joined.made)
    if not joined.made.files:
        print("is known here already, nothing changed")
    for sign, names in (("+", joined.added), ("-", joined.removed)):
        for name in names:
            print(f"{sign} {name}")
    client = None if joined.whole else read_client(places.client)
    if client:
        print(f"where the farm key is: dr keys authorize {_user_name()} '{client.public}'")
    return 0


def _tell(made: Made) -> None:
    for path in made.aside:
        print(f"{path}: the old key, delete it when nobody needs it")
    for path in made.files:
        print(f"{path}: written")


def _places() -> KeyPlaces:
    from dr.keys.folder import default_folder, key_places

    return key_places(os.environ, default_folder())


def _user_name() -> str:
    """What this user's own key is called; an account without a name, or with a strange one, gets its number."""
    from dr.errors import BadInput
    from dr.keys.format import check_name

    try:
        return check_name(getpass.getuser(), "user")
    except (BadInput, KeyError, OSError):
        return f"user-{os.getuid()}"
