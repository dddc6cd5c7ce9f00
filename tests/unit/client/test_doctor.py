"""What the doctor makes of facts: verdicts, hints, and differences of pixels."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dr.client.doctor import find_named, is_refused_everywhere
from dr.client.doctor_bucket import SIDE, Trial, check_bucket, check_pixels, compare, write_scene
from dr.client.doctor_checks import (
    CLOCK_S,
    SAME_VERSION,
    Address,
    Check,
    Own,
    Seen,
    Verdict,
    check_addresses,
    check_announced,
    check_clock,
    check_name,
    check_server,
    check_space,
    check_versions,
)
from dr.client.doctor_machine import THIS_MACHINE, Kernels, check_descriptors, check_machine, check_settings
from dr.client.link import NOBODY
from dr.client.roster import Place, Words
from dr.client.status import NONSENSE
from dr.errors import BadInput, Refused
from dr.keys.key import make_pair
from dr.keys.ring import KeyRing
from dr.keys.security import Security
from dr.protocol.messages import Announcement, Availability, Channel, ServerStatus, Welcome
from dr.protocol.version import PROTOCOL_VERSION
from dr.settings import ServerAddress, Settings

OWN = Own(kernels="k" * 64, protocol=PROTOCOL_VERSION, release="0.1.0")
PLACE = Place("127.0.0.1", 30000)
BOOT = b"bootboot"
GB = 10**9


def welcome(**fields: Any) -> Welcome:
    plain = {"version": PROTOCOL_VERSION, "kernels": OWN.kernels, "boot": BOOT, "name": "vault", "threads": 8}
    return Welcome(**{**plain, **fields})


def status(**fields: Any) -> ServerStatus:
    plain = {"state": Availability.READY, "release": OWN.release, "guard": "keys", "cache_free_bytes": 50 * GB}
    return ServerStatus(**{**plain, **fields})


def seen(**fields: Any) -> Seen:
    words = Words(welcome=welcome(), status=status())
    plain = {"subject": "vault:30000", "place": PLACE, "answers": True, "state": "ready", "clock_ahead_s": 0.0}
    return Seen(**{**plain, "words": words, **fields})


def verdicts(checks: list[Check]) -> dict[str, str]:
    return {check.name: str(check.verdict) for check in checks}


def test_a_healthy_server_is_ok_in_everything() -> None:
    checks = check_server(seen(round_trip_s=0.00042), OWN)
    assert verdicts(checks) == dict.fromkeys(("port", "key", "versions", "clock", "cache", "announcements"), "ok")
    assert checks[0].found == "answers: vault, ready, round trip 0.4 ms"
    assert not any(check.hint for check in checks)


def test_whatever_is_not_ok_comes_with_a_hint() -> None:
    ill = seen(
        clock_ahead_s=-60.0,
        words=Words(
            welcome=welcome(kernels="other", announce=20205),
            status=status(guard="insecure", cache_free_bytes=GB, release="0.0.9"),
        ),
    )
    silent = seen(answers=False, reason="no answer within 3 s", words=Words())
    checks = [*check_server(ill, OWN), *check_server(silent, OWN)]
    assert Verdict.FAIL in {check.verdict for check in checks}
    assert [check.name for check in checks if (check.verdict is not Verdict.OK) != bool(check.hint)] == []


@pytest.mark.parametrize(
    ("reason", "refuses_key", "name", "hint"),
    [
        (NOBODY, False, "port", "firewall: allow TCP 30000"),
        (NONSENSE, False, "port", "another program has TCP 30000"),
        ("no answer within 3 s", False, "port", "firewall: allow TCP 30000"),
        ("another farm key", True, "key", "`dr keys import-farm FILE`"),
    ],
)
def test_silence_has_its_reason_and_what_to_do(reason: str, refuses_key: bool, name: str, hint: str) -> None:
    (check,) = check_server(seen(answers=False, reason=reason, refuses_key=refuses_key, words=Words()), OWN)
    assert (check.name, check.verdict, check.found) == (name, Verdict.FAIL, reason)
    assert hint in check.hint


def test_a_key_that_is_not_admitted_says_what_to_ask_for_once() -> None:
    reason = "your key is not admitted there; ask for `dr keys authorize NAME 'KEY'`"
    (check,) = check_server(seen(answers=False, reason=reason, refuses_key=True, words=Words()), OWN)
    assert (check.name, check.verdict, check.found, check.hint) == ("key", Verdict.FAIL, reason, "")


def test_a_guess_that_nobody_answers_is_no_failure() -> None:
    (check,) = check_server(seen(answers=False, reason=NOBODY, expected=False, words=Words()), OWN)
    assert (check.name, check.verdict) == ("port", Verdict.WARN)


@pytest.mark.parametrize(
    ("found", "release", "verdict"),
    [
        ({}, "0.1.0", Verdict.OK),
        ({"version": 9}, "0.1.0", Verdict.FAIL),
        ({"kernels": "another"}, "0.1.0", Verdict.FAIL),
        ({}, "0.2.0", Verdict.WARN),
        ({}, "", Verdict.WARN),
    ],
)
def test_protocol_and_kernels_must_agree_and_releases_should(
    found: dict[str, Any], release: str, verdict: Verdict
) -> None:
    check = check_versions("vault", welcome(**found), status(release=release), OWN)
    assert check.verdict is verdict
    assert (verdict is Verdict.OK) or check.hint.startswith(SAME_VERSION)


@given(st.floats(-1e6, 1e6), st.floats(0, 100))
def test_a_clock_may_differ_by_two_seconds_and_half_the_round_trip(ahead_s: float, round_trip_s: float) -> None:
    fine = check_clock("vault", ahead_s, round_trip_s).verdict is Verdict.OK
    assert fine == (abs(ahead_s) <= CLOCK_S + round_trip_s / 2)


def test_a_server_that_does_not_tell_its_time_or_its_space_is_a_warning() -> None:
    assert check_clock("vault", None, 0.0).verdict is Verdict.WARN
    assert check_space("vault", "cache", -1).verdict is Verdict.WARN


@pytest.mark.parametrize(
    ("free_bytes", "verdict"),
    [(0, "FAIL"), (499_999_999, "FAIL"), (500_000_000, "warn"), (4_999_999_999, "warn"), (5_000_000_000, "ok")],
)
def test_little_space_warns_and_next_to_none_fails(free_bytes: int, verdict: str) -> None:
    assert check_space("vault", "cache", free_bytes).verdict == verdict


def test_an_announcer_must_name_this_very_process() -> None:
    def announced(boot: bytes) -> Announcement:
        return Announcement(version=PROTOCOL_VERSION, port=30000, boot=boot, state=Availability.READY)

    host = welcome(announce=20205)
    assert check_announced("vault", welcome(), None, 30000).verdict is Verdict.OK  # no spawner
    assert check_announced("vault", host, None, 30000).verdict is Verdict.WARN
    assert "TCP 20205" in check_announced("vault", host, None, 30000).hint
    assert check_announced("vault", host, announced(b"otherone"), 30000).verdict is Verdict.WARN
    assert check_announced("vault", host, announced(BOOT), 30000).verdict is Verdict.OK


def test_a_name_must_lead_somewhere_and_not_to_every_machine_itself() -> None:
    nowhere = check_name("vault", (), "Name or service not known")
    assert (nowhere.verdict, nowhere.found) == (Verdict.FAIL, "does not resolve: Name or service not known")
    assert check_name("vault", ("127.0.1.1",), "").verdict is Verdict.WARN
    assert check_name("vault", ("10.0.0.7", "fd00::7"), "").verdict is Verdict.OK


def test_addresses_of_one_name_must_lead_to_one_server() -> None:
    def check(*boots: bytes) -> Check | None:
        return check_addresses("vault", [Address(literal=f"10.0.0.{i}", boot=boot) for i, boot in enumerate(boots)])

    assert check(BOOT, BOOT) is None
    assert check(BOOT, b"") is None  # the one that renders use answers
    assert check(b"", b"") is None  # that is another check
    other, first_is_silent = check(BOOT, b"otherone"), check(b"", BOOT)
    assert other
    assert first_is_silent
    assert (other.verdict, first_is_silent.verdict) == (Verdict.WARN, Verdict.WARN)
    assert other.found == "at 10.0.0.0, which renders use, one server answers, another server answers at 10.0.0.1"
    assert first_is_silent.found == "at 10.0.0.0, which renders use, nobody answers, but somebody at 10.0.0.1"


def failed(subject: str, name: str, verdict: Verdict = Verdict.FAIL) -> Check:
    return Check(subject=subject, name=name, verdict=verdict, found="")


def test_refused_everywhere_means_that_keys_keep_us_from_every_server() -> None:
    one, two = failed("a:1", "key"), failed("b:1", "key")
    assert is_refused_everywhere([one, two, failed(THIS_MACHINE, "disk")])
    assert not is_refused_everywhere([])
    assert not is_refused_everywhere([one, failed("b:1", "port")])
    assert not is_refused_everywhere([one, failed("b:1", "port", Verdict.OK)])
    assert not is_refused_everywhere([failed(THIS_MACHINE, "keys")])


def test_words_win_over_the_settings_and_these_over_this_machine() -> None:
    listed = (ServerAddress(host="a", port=1), ServerAddress(host="b", enabled=False))
    settings = Settings(servers=listed)
    assert find_named(["c", "c"], settings, ()).texts == ("c",)
    assert find_named([], settings, ()).texts == ("a:1",)
    assert find_named([], Settings(), ()).texts == ()
    with pytest.raises(BadInput, match="expected a port"):
        find_named(["c:99999"], settings, ())


# -- this machine -------------------------------------------------------------------------------------------------


def machine(settings: Settings, security: Security, **kernels: Any) -> dict[str, Check]:
    facts = {"code": "c" * 64, "compiled": "d" * 24, "warm": True, "folder": str(settings.kernel_cache), **kernels}
    return {check.name: check for check in check_machine(settings, security, Kernels(**facts), 2)}


def test_a_machine_with_keys_and_compiled_kernels_is_ok(tmp_path: Path) -> None:
    settings = Settings(log_folder=tmp_path / "not" / "yet", kernel_cache=tmp_path)
    pair, farm = make_pair(), make_pair()
    ring = KeyRing(client=pair, farm_public=farm.public, farm_secret=farm.secret)
    checks = machine(settings, Security(ring=ring))
    assert {name: check.verdict for name, check in checks.items() if name not in ("disk", "open files")} == {
        "keys": Verdict.OK,
        "kernels": Verdict.OK,
        "kernel cache": Verdict.OK,
        "log folder": Verdict.OK,
    }
    assert checks["keys"].found == "the farm key, private to this user"
    assert checks["kernels"].found == f"code {'c' * 16}, compiled as {'d' * 16}"


def test_unsafe_keys_cold_kernels_and_unfit_machines_are_told(tmp_path: Path) -> None:
    settings = Settings(log_folder=tmp_path, kernel_cache=tmp_path)
    checks = machine(settings, Security(trouble=Refused("farm.key: found mode 644; chmod 600 farm.key")), warm=False)
    assert (checks["keys"].verdict, checks["kernels"].verdict) == (Verdict.FAIL, Verdict.WARN)
    assert "chmod 600" in checks["keys"].found
    assert "dr warmup" in checks["kernels"].hint
    unfit = machine(settings, Security(), trouble="expected an x86-64-v3 CPU (2013 or later), found one without fma")
    assert unfit["kernels"].verdict is Verdict.FAIL
    assert "without fma" in unfit["kernels"].found


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_fails(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    checks = machine(Settings(log_folder=tmp_path / "logs", kernel_cache=tmp_path), Security())
    assert checks["log folder"].verdict is Verdict.FAIL


def test_a_file_where_a_folder_is_expected_fails(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("")
    checks = machine(Settings(log_folder=tmp_path / "logs", kernel_cache=tmp_path), Security())
    assert checks["log folder"].verdict is Verdict.FAIL


def test_open_files_must_suffice_for_the_servers() -> None:
    assert check_descriptors(200, 1024).verdict is Verdict.OK
    assert check_descriptors(500, 1024).verdict is Verdict.WARN
    assert "LimitNOFILE=" in check_descriptors(500, 1024).hint
    assert check_descriptors(10**6, -1).verdict is Verdict.OK


def test_settings_are_ok_where_there_are_none_and_not_where_they_are_broken(tmp_path: Path) -> None:
    assert check_settings(str(tmp_path / "dr.toml"), "").verdict is Verdict.OK
    assert check_settings(str(tmp_path / "dr.toml"), "expected TOML").verdict is Verdict.FAIL


# -- buckets ------------------------------------------------------------------------------------------------------


def picture(seed: int = 1) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        Channel.BEAUTY: rng.random((SIDE, SIDE, 3), np.float32),
        Channel.DEPTH: np.full((SIDE, SIDE), np.inf, np.float32),
    }


def test_equal_bits_are_no_difference_also_where_they_are_no_numbers() -> None:
    one, two = picture(), picture()
    one[Channel.BEAUTY][3, 4, 0] = two[Channel.BEAUTY][3, 4, 0] = np.nan
    assert compare(one, two).pixels == 0


def test_a_pixel_counts_once_and_the_largest_difference_is_told() -> None:
    one, two = picture(), picture()
    two[Channel.BEAUTY][3, 4] += np.float32(0.25)
    two[Channel.BEAUTY][5, 6, 2] += np.float32(0.5)
    found = compare(one, two)
    assert found.pixels == 2
    assert found.largest == pytest.approx(0.5, abs=1e-6)
    two[Channel.DEPTH][0, 0] = 1.0
    assert (compare(one, two).pixels, compare(one, two).largest) == (3, np.inf)


def test_the_smallest_difference_and_the_sign_of_zero_count() -> None:
    one, two = picture(), picture()
    one[Channel.BEAUTY][0, 0, 0], two[Channel.BEAUTY][0, 0, 0] = 0.0, -0.0
    one[Channel.BEAUTY][1, 1, 1] = np.nextafter(two[Channel.BEAUTY][1, 1, 1], np.float32(2))
    assert compare(one, two).pixels == 2


def test_other_channels_or_sizes_differ_everywhere() -> None:
    assert compare({Channel.BEAUTY: picture()[Channel.BEAUTY]}, picture()).pixels == SIDE * SIDE


def test_pixels_are_compared_with_this_machine_or_with_those_that_most_have() -> None:
    right, wrong = Trial(channels=picture()), Trial(channels=picture(2))
    checks = check_pixels({THIS_MACHINE: right, "a:1": right, "b:1": wrong}, THIS_MACHINE)
    assert [(check.subject, check.verdict) for check in checks] == [("a:1", Verdict.OK), ("b:1", Verdict.FAIL)]
    assert checks[1].found.startswith(f"1024 of 1024 pixels differ from {THIS_MACHINE}, by up to ")
    among = check_pixels({"a:1": wrong, "b:1": right, "c:1": right}, None)
    assert [(check.subject, check.verdict) for check in among] == [("a:1", Verdict.FAIL), ("c:1", Verdict.OK)]


def test_one_picture_alone_is_compared_with_nothing() -> None:
    busy = Trial(channels={}, skipped="busy with ada")
    assert check_pixels({"a:1": Trial(channels=picture()), "b:1": busy}, None) == []
    assert check_pixels({}, THIS_MACHINE) == []


@pytest.mark.parametrize(
    ("trial", "verdict", "words"),
    [
        (Trial(channels={}, skipped="busy with ada"), Verdict.WARN, "busy with ada, not tested"),
        (Trial(channels={}, unfinished="compiling kernels, first run only: 3 of 9"), Verdict.WARN, "3 of 9"),
        (Trial(channels={}, unfinished="reading the scene"), Verdict.FAIL, "not finished within 5 s"),
        (Trial(channels={}, problem="no fma"), Verdict.FAIL, "no fma"),
        (Trial(channels=picture(), first_s=1.25, samples_per_second=2e6), Verdict.OK, "first one after 1.2 s, 2.00 M"),
    ],
)
def test_what_came_of_a_bucket_is_told(trial: Trial, verdict: Verdict, words: str) -> None:
    check = check_bucket("a:1", trial, 5.0)
    assert check.verdict is verdict
    assert words in check.found
    assert (verdict is Verdict.OK) == (check.hint == "")


def test_the_test_scene_is_a_scene_with_a_texture_that_can_be_read(tmp_path: Path) -> None:
    import dr
    from workers.prepare.image_file import read_image

    scene = dr.load_scene(write_scene(tmp_path))
    assert (len(scene.lights), len(scene.images), scene.settings.width, scene.settings.samples) == (1, 1, SIDE, 16)
    assert scene.notices == ()
    pixels, _ = read_image((tmp_path / "tiles.png").read_bytes(), "tiles.png", "")
    assert pixels.shape == (8, 8, 4)
    assert pixels[0, 1, 0] == 60
    assert pixels[0, 0, 0] == 200
