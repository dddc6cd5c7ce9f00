"""`dr keys`: what each command says, what it never says, every mistake in one line."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from dr.cli import main
from dr.keys.changes import init_keys
from dr.keys.folder import KeyPlaces, key_places, load_keys
from dr.keys.ring import KeyRing
from tests.support.keys import pair_of

BERT = pair_of("bert")


@pytest.fixture(autouse=True)
def _user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user `anna` without keys."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("LOGNAME", "anna")
    monkeypatch.delenv("DR_FARM_KEY_FILE", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "config" / "dr" / "keys"


@pytest.fixture
def made(folder: Path) -> KeyPlaces:
    places = key_places({}, folder)
    init_keys(places, "anna")
    return places


class Keys:
    """Runs `dr keys WORDS`; each text that it prints must hold no secret of the folder."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.capsys = capsys

    def run(self, *words: str) -> tuple[int, str, str]:
        before = self.secrets()
        status = main(["keys", *words])
        out, err = self.capsys.readouterr()
        for secret in before | self.secrets():
            assert secret not in out + err
            assert secret[:20] not in out + err
        return status, out, err

    def do(self, *words: str) -> str:
        """What it says when all is well."""
        status, out, err = self.run(*words)
        assert (status, err) == (0, "")
        return out

    def fail(self, *words: str) -> tuple[int, str]:
        """Status, and the one line that it says."""
        status, out, err = self.run(*words)
        assert out == ""
        assert err.startswith("dr: ")
        assert len(err.splitlines()) == 1
        return status, err[4:-1]

    def secrets(self) -> set[str]:
        files = [path for path in self.folder.glob("*.key*") if path.is_file()]
        lines = [line for path in files for line in path.read_text(errors="replace").splitlines()]
        return {line.split('"')[1] for line in lines if line.startswith("secret_key") and line.count('"') == 2}

    @property
    def ring(self) -> KeyRing:
        return load_keys({}, self.folder)


@pytest.fixture
def keys(folder: Path, capsys: pytest.CaptureFixture[str]) -> Keys:
    return Keys(folder, capsys)


def test_init_makes_keys_once(keys: Keys, folder: Path) -> None:
    assert keys.do("init") == f"{folder}/client.key: made\n{folder}/farm.key: made\n"
    ring = keys.ring
    assert len(keys.secrets()) == 2
    assert list(ring.clients.values()) == ["anna"]
    same = "is there already, nothing changed"
    assert keys.do("init") == f"{folder}/client.key: {same}\n{folder}/farm.key: {same}\n"
    assert keys.ring == ring


def test_show_shows_public_halves(keys: Keys, made: KeyPlaces) -> None:
    ring = keys.ring
    assert ring.client is not None
    assert keys.do("show") == (
        f"client key: {ring.client.public}  ({made.client})\n"
        f"farm key:   {ring.farm_public}  ({made.farm}, whole)\n"
        "clients:    1, see dr keys list\n"
        "as a client this machine shows the client key\n"
    )
    assert json.loads(keys.do("show", "--json")) == {
        "client_key": ring.client.public,
        "client_file": str(made.client),
        "farm_key": ring.farm_public,
        "farm_file": str(made.farm),
        "farm": "whole",
        "clients": {"anna": ring.client.public},
    }


def test_show_without_keys_says_how_to_make_them(keys: Keys, folder: Path) -> None:
    assert keys.do("show").splitlines() == [
        f"client key: none  ({folder}/client.key)",
        f"farm key:   none  ({folder}/farm.key)",
        "dr keys init makes what is missing",
    ]
    assert json.loads(keys.do("show", "--json"))["farm"] is None


def test_clients_are_authorized_listed_and_revoked(keys: Keys, made: KeyPlaces) -> None:
    ring = keys.ring
    assert keys.do("authorize", "bert", BERT.public).splitlines()[0] == "bert is admitted on this machine within 2 s"
    assert keys.do("authorize", "bert", BERT.public) == "bert is admitted already, nothing changed\n"
    assert ring.client is not None
    assert keys.do("list").splitlines() == [
        f"{ring.farm_public}  farm (whoever holds the farm key)",
        f"{ring.client.public}  anna",
        f"{BERT.public}  bert",
    ]
    out = keys.do("revoke", "bert")
    assert out.splitlines()[0] == f"bert ({BERT.public}) is admitted no longer on this machine within 2 s"
    assert "dr keys export-farm FILE here, dr keys import-farm FILE there" in out
    assert keys.ring == ring


def test_a_key_that_begins_like_an_option_can_be_given(keys: Keys, made: KeyPlaces) -> None:
    key = "-" + "h" * 39
    keys.do("authorize", "bert", "--", key)
    assert keys.ring.client_name(key) == "bert"


def test_a_farm_is_carried_to_another_machine(
    keys: Keys, made: KeyPlaces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = keys.do("export-farm", "out.key")
    assert out == "out.key: the whole farm key: keep it secret, delete it when it is imported\n"
    assert stat.S_IMODE((tmp_path / "out.key").stat().st_mode) == 0o600
    farm = keys.ring.farm
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "there"))
    there = Keys(tmp_path / "there" / "dr" / "keys", keys.capsys)
    assert there.do("import-farm", "out.key") == f"{there.folder}/farm.key: written\n+ anna\n"
    assert there.do("import-farm", "out.key") == "is known here already, nothing changed\n"
    assert there.ring.farm == farm
    assert "as a client this machine shows the farm key" in there.do("show")


def test_a_client_gets_the_public_half_and_is_told_what_to_ask_for(
    keys: Keys, made: KeyPlaces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert keys.do("export-farm", "--public", "out.key") == "out.key: the public half, no secret\n"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "there"))
    there = Keys(tmp_path / "there" / "dr" / "keys", keys.capsys)
    lines = there.do("import-farm", "out.key").splitlines()
    assert there.ring.client is not None
    assert lines == [
        f"{there.folder}/farm.key: written",
        f"{there.folder}/client.key: written",
        f"where the farm key is: dr keys authorize anna '{there.ring.client.public}'",
    ]
    assert ", public half)" in there.do("show")
    assert there.fail("list")[0] == 3
    assert there.fail("export-farm", "again.key")[0] == 3


@pytest.mark.parametrize("which", ["client", "farm"])
def test_a_key_is_renewed_and_the_old_one_is_kept(keys: Keys, made: KeyPlaces, which: str) -> None:
    ring, path = keys.ring, getattr(made, which)
    old = path.read_bytes()
    lines = keys.do("init", "--renew", which).splitlines()
    assert lines[0] == f"{path}.old-1: the old key, delete it when nobody needs it"
    assert f"{path}: written" in lines
    assert path.with_name(f"{path.name}.old-1").read_bytes() == old
    assert (keys.ring.client != ring.client, keys.ring.farm != ring.farm) == (which == "client", which == "farm")


def test_the_variable_for_services_names_the_farm_key(
    keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DR_FARM_KEY_FILE", str(tmp_path / "service.key"))
    assert keys.fail("show") == (
        2,
        f"DR_FARM_KEY_FILE: expected a farm key file, found none at {tmp_path}/service.key; `dr keys init` makes it",
    )
    assert f"{tmp_path}/service.key: made" in keys.do("init")
    keys.do("authorize", "bert", BERT.public)
    assert "bert" in (tmp_path / "service.key").read_text()


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (["authorize", "bert", "short"], 2, "KEY: expected a public key of 40 letters (Z85), found 5 letters"),
        (["authorize", "bert", "'" * 40], 2, "KEY: expected a public key of 40 letters (Z85), found something else"),
        (["authorize", "farm", BERT.public], 2, "NAME: expected a name that does not begin with '-'"),
        (["authorize", " ", BERT.public], 2, "NAME: expected a name of 1 to 64 printable letters"),
        (["authorize", "a\nb", BERT.public], 2, "found 'a?b'"),
        (["authorize", "anna", BERT.public], 2, "NAME: 'anna' has another key already"),
        (["authorize", "bert"], 2, "Missing argument 'KEY'"),
        (["revoke", "ana"], 2, "NAME: expected an authorized client, found 'ana' (did you mean 'anna'?)"),
        (["revoke", "farm"], 2, "dr keys init --renew farm"),
        (["import-farm", "none"], 2, "none: expected a farm key file, found none"),
        (["import-farm", "."], 2, ".: expected a file, found a folder"),
        (["import-farm", "letter"], 2, "letter: expected a key file (TOML): "),
        (["import-farm", "open.key"], 3, "open.key: expected a file that only you can read or change, found mode 644"),
        (["import-farm", "other.key"], 2, "--force replaces that one and keeps it aside"),
        (["export-farm", "letter"], 2, "letter: exists already; choose another name, or --force to replace it"),
        (["export-farm", "no/such/folder"], 2, "no/such/folder: cannot write it: No such file or directory"),
        (["export-farm", "--force", "other.key"], 2, "other.key: holds the key of another farm; move it away first"),
        (["init", "--renew", "all"], 2, "'all'"),
        (["mint"], 2, "No such command 'mint'"),
    ],
)
def test_a_mistake_is_one_clear_line(
    keys: Keys, made: KeyPlaces, tmp_path: Path, words: list[str], status: int, text: str
) -> None:
    (tmp_path / "letter").write_text("Dear Bert,\n")
    other = key_places({}, tmp_path / "other")
    init_keys(other, "bert")
    (tmp_path / "other.key").touch(mode=0o600)
    (tmp_path / "open.key").touch(mode=0o644)
    for name in ("other.key", "open.key"):
        (tmp_path / name).write_bytes(other.farm.read_bytes())
    before = made.farm.read_bytes()
    found, said = keys.fail(*words)
    assert text in said
    assert found == status
    assert made.farm.read_bytes() == before


@pytest.mark.parametrize(
    "words", [["list"], ["authorize", "bert", BERT.public], ["revoke", "bert"], ["export-farm", "x"]]
)
def test_without_a_farm_key_one_is_told_how_to_make_it(keys: Keys, words: list[str]) -> None:
    status, text = keys.fail(*words)
    assert status == 3
    assert "dr keys init" in text


@pytest.mark.parametrize(
    "words", [["show"], ["list"], ["init"], ["authorize", "bert", BERT.public], ["export-farm", "x"]]
)
@pytest.mark.parametrize("harm", ["cut", "open"])
def test_a_harmed_farm_key_is_one_clear_line_and_stays_as_it_is(
    keys: Keys, made: KeyPlaces, words: list[str], harm: str
) -> None:
    if harm == "cut":
        made.farm.write_bytes(made.farm.read_bytes()[:-20])
    else:
        made.farm.chmod(0o640)
    before = made.farm.read_bytes()
    status, text = keys.fail(*words)
    assert status == (2 if harm == "cut" else 3)
    assert text.startswith(f"{made.farm}: expected ")
    assert made.farm.read_bytes() == before


def test_help_tells_the_commands(keys: Keys) -> None:
    out = keys.do("--help")
    commands = ("init", "show", "export-farm", "import-farm", "authorize", "revoke", "list")
    assert [name for name in commands if name not in out] == []
