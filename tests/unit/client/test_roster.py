"""What is known of a farm: facts in any order, rows out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dr.client.roster import MAX_ANNOUNCERS, MAX_SERVERS, Place, Roster, Row
from dr.protocol.messages import Announcement, Availability, EngineKind, ServerStatus, Welcome
from dr.protocol.version import PROTOCOL_VERSION

HOST, PORT = "127.0.0.1", 30000
PLACE = Place(HOST, PORT)
BOOT, OTHER_BOOT = b"bootboot", b"anewboot"
REASON = "nobody listens there"


def welcome(boot: bytes = BOOT, version: int = PROTOCOL_VERSION, **fields: object) -> Welcome:
    plain = {"kernels": "k", "name": "vault", "threads": 8, "cpu": "a CPU"}
    return Welcome(**{"version": version, "boot": boot, **plain, **fields})  # type: ignore[arg-type]


def status(state: Availability = Availability.READY, holder: str = "", **fields: object) -> ServerStatus:
    return ServerStatus(state=state, holder=holder, **fields)  # type: ignore[arg-type]


def announcement(state: Availability, boot: bytes = BOOT, port: int = PORT, holder: str = "") -> Announcement:
    return Announcement(version=PROTOCOL_VERSION, port=port, boot=boot, state=state, holder=holder)


@pytest.fixture
def roster() -> Roster:
    """One server that the user named."""
    roster = Roster()
    roster.named(PLACE, "localhost", 0.0)
    return roster


def test_one_that_is_there_and_does_not_let_us_in_is_refused(roster: Roster) -> None:
    roster.fell_silent(PLACE, "your key is not admitted there", 1.0, refused=True)
    row = only_row(roster)
    assert (row.state, row.reason, row.answers) == ("refused", "your key is not admitted there", False)
    roster.fell_silent(PLACE, REASON, 2.0)
    assert only_row(roster).state == "no answer"


def only_row(roster: Roster, now: float = 10.0) -> Row:
    (row,) = roster.rows(now)
    return row


def answer(roster: Roster, now: float, boot: bytes = BOOT, told: ServerStatus | None = None) -> None:
    roster.welcomed(PLACE, welcome(boot), now)
    roster.reported(PLACE, boot, told or status(), now)


def test_a_server_that_was_only_asked_is_a_row_without_facts(roster: Roster) -> None:
    expected = Row(host="localhost", port=PORT, address=HOST, state="asked", silent_s=10.0)
    assert only_row(roster) == expected


def test_a_server_that_answers_tells_everything(roster: Roster) -> None:
    told = status(
        Availability.BUSY,
        "ada",
        engine=EngineKind.RT,
        nodes=[2, 3],
        release="1.2.3",
        buckets=7,
        buckets_per_s=2.5,
        memory_bytes=12,
        up_s=3.0,
    )
    answer(roster, 1.0, told=told)
    assert only_row(roster) == Row(
        host="localhost",
        port=PORT,
        address=HOST,
        name="vault",
        answers=True,
        state="busy",
        holder="ada",
        engine="rt",
        nodes=[2, 3],
        threads=8,
        cpu="a CPU",
        buckets=7,
        buckets_per_s=2.5,
        memory_bytes=12,
        up_s=3.0,
        version="1.2.3",
        boot=BOOT.hex(),
    )


def test_a_silent_server_keeps_its_row_with_the_reason_and_the_age_of_its_silence(roster: Roster) -> None:
    answer(roster, 1.0)
    roster.fell_silent(PLACE, REASON, 4.0)
    row = only_row(roster, now=13.5)
    assert (row.answers, row.state, row.reason, row.silent_s, row.threads) == (False, "no answer", REASON, 12.5, 8)
    assert (row.buckets_per_s, row.memory_bytes) == (None, None)  # it has none any more


def test_a_server_that_answers_again_is_not_silent(roster: Roster) -> None:
    roster.fell_silent(PLACE, REASON, 1.0)
    answer(roster, 2.0)
    row = only_row(roster)
    assert (row.answers, row.state, row.reason, row.silent_s) == (True, "ready", "", None)


def test_a_welcome_alone_tells_who_holds_a_server_and_what_it_withholds(roster: Roster) -> None:
    roster.welcomed(PLACE, welcome(busy=True, holder="ada"), 1.0)
    roster.withheld(PLACE, BOOT, "an older version", 1.0)
    row = only_row(roster)
    assert (row.state, row.holder, row.reason, row.version) == ("busy", "ada", "an older version", None)


def test_another_protocol_is_named(roster: Roster) -> None:
    roster.welcomed(PLACE, welcome(version=9), 1.0)
    assert only_row(roster).reason == "it speaks protocol 9, this program 1; install one version on both"


def test_another_boot_is_another_process_whose_past_does_not_count(roster: Roster) -> None:
    answer(roster, 1.0, told=status(Availability.DRAINING, buckets=99))
    roster.welcomed(PLACE, welcome(OTHER_BOOT), 2.0)
    row = only_row(roster)
    assert (row.boot, row.state, row.buckets) == (OTHER_BOOT.hex(), "ready", None)


@pytest.mark.parametrize("state", [Availability.READY, Availability.BUSY, Availability.DRAINING])
def test_an_announcement_between_two_askings_counts(roster: Roster, state: Availability) -> None:
    answer(roster, 1.0)
    roster.announced(HOST, announcement(state, holder="bob"), 2.0)
    assert (only_row(roster).state, only_row(roster).holder) == (state, "bob")
    answer(roster, 3.0)
    assert (only_row(roster).state, only_row(roster).holder) == ("ready", "")


@pytest.mark.parametrize("boot", [BOOT, OTHER_BOOT])
def test_nobody_can_announce_that_a_server_which_answers_is_gone(roster: Roster, boot: bytes) -> None:
    answer(roster, 1.0)
    roster.announced(HOST, announcement(Availability.GONE, boot), 2.0)
    assert only_row(roster).state == "ready"


def test_an_announcement_about_another_process_does_not_count_while_this_one_answers(roster: Roster) -> None:
    answer(roster, 1.0)
    roster.announced(HOST, announcement(Availability.BUSY, OTHER_BOOT, holder="mallory"), 2.0)
    assert (only_row(roster).state, only_row(roster).holder) == ("ready", "")


@pytest.mark.parametrize("announced_s", [2.0, 4.0])
def test_a_server_that_is_gone_stays_gone_whatever_its_gate_tells_first(roster: Roster, announced_s: float) -> None:
    answer(roster, 1.0)
    roster.announced(HOST, announcement(Availability.GONE), announced_s)
    roster.fell_silent(PLACE, REASON, 3.0)
    row = only_row(roster)
    assert (row.answers, row.state, row.reason) == (False, "gone", "the process has ended")


def test_a_server_that_hangs_is_silent_although_its_spawner_announces_it(roster: Roster) -> None:
    roster.fell_silent(PLACE, "no answer within 2 s", 3.0)
    roster.announced(HOST, announcement(Availability.READY), 4.0)
    assert only_row(roster).state == "no answer"


def test_siblings_and_announced_ports_are_asked_on_the_host_that_was_dialled(roster: Roster) -> None:
    roster.welcomed(PLACE, welcome(siblings=[30001, 0, PORT], announce=30009), 1.0)
    roster.announced(HOST, announcement(Availability.READY, port=30002), 1.0)
    assert list(roster.places()) == [PLACE, Place(HOST, 30001), Place(HOST, 30002)]
    assert list(roster.announcers()) == [Place(HOST, 30009)]


def test_a_wrong_guess_is_shown_only_where_nothing_else_is_known() -> None:
    roster = Roster()
    roster.named(PLACE, "localhost", 0.0, guessed=True)
    roster.fell_silent(PLACE, REASON, 1.0)
    assert only_row(roster).reason == REASON
    roster.announced(HOST, announcement(Availability.READY, port=40000), 2.0)
    assert only_row(roster).port == 40000
    roster.named(PLACE, "localhost", 3.0)
    assert [row.port for row in roster.rows(4.0)] == [PORT, 40000]


def test_rows_are_in_the_order_of_hosts_and_ports_as_people_count() -> None:
    roster = Roster()
    for i, (name, port) in enumerate([("node10", 1), ("node2", 20), ("node2", 3), ("apple", 9)]):
        roster.named(Place(f"10.0.0.{len(name)}{name[-1]}", port), name, float(i))
    assert [(row.host, row.port) for row in roster.rows(9.0)] == [
        ("apple", 9),
        ("node2", 3),
        ("node2", 20),
        ("node10", 1),
    ]


def test_a_host_that_names_ever_more_servers_costs_a_bounded_number() -> None:
    roster = Roster()
    roster.named(PLACE, "localhost", 0.0)
    for port in range(1, 3000):
        roster.announced(HOST, announcement(Availability.READY, port=port), 1.0)
        roster.welcomed(PLACE, welcome(announce=port), 1.0)
    assert len(roster.places()) == len(roster.rows(2.0)) == MAX_SERVERS
    assert len(roster.announcers()) == MAX_ANNOUNCERS
    roster.announced("127.0.0.2", announcement(Availability.READY), 1.0)
    assert len(roster.rows(2.0)) == MAX_SERVERS + 1  # another host is not crowded out


Fact = Callable[[Roster, float], None]
hosts = st.sampled_from(["10.0.0.1", "10.0.0.2"])
ports = st.integers(1, 4)
places = st.builds(Place, hosts, ports)
boots = st.sampled_from([BOOT, OTHER_BOOT])
states = st.sampled_from(list(Availability))
holders = st.sampled_from(["", "ada", "bob"])
statuses = st.builds(lambda state, holder, n: status(state, holder, buckets=n), states, holders, st.integers(0, 9))
welcomes = st.builds(
    lambda boot, busy, siblings: welcome(boot, busy=busy, siblings=siblings), boots, st.booleans(), st.lists(ports)
)
facts: st.SearchStrategy[Fact] = st.one_of(
    st.builds(lambda place, guess: lambda r, now: r.named(place, place.host, now, guess), places, st.booleans()),
    st.builds(lambda place, told: lambda r, now: r.welcomed(place, told, now), places, welcomes),
    st.builds(lambda place, boot, told: lambda r, now: r.reported(place, boot, told, now), places, boots, statuses),
    st.builds(lambda place, boot: lambda r, now: r.withheld(place, boot, "old", now), places, boots),
    st.builds(
        lambda host, state, boot, port, holder: (
            lambda r, now: r.announced(host, announcement(state, boot, port, holder), now)
        ),
        hosts,
        states,
        boots,
        ports,
        holders,
    ),
    st.builds(lambda place: lambda r, now: r.fell_silent(place, REASON, now), places),
)


def told_in_order(order: list[tuple[int, Fact]]) -> Roster:
    roster = Roster()
    for at_s, fact in order:
        fact(roster, float(at_s))
    return roster


@given(st.lists(facts, max_size=30).flatmap(lambda chosen: st.permutations(list(enumerate(chosen)))))
def test_the_order_in_which_facts_arrive_decides_nothing(order: list[tuple[int, Fact]]) -> None:
    late, timely = told_in_order(order), told_in_order(sorted(order, key=lambda each: each[0]))
    assert late.rows(100.0) == timely.rows(100.0)
    assert late.places() == timely.places()


@given(st.lists(facts, max_size=30))
def test_no_server_is_lost_and_each_row_makes_sense(chosen: list[Fact]) -> None:
    roster = Roster()
    for at_s, fact in enumerate(chosen):
        before = {(row.address, row.port) for row in roster.rows(100.0) if row.answers or row.state == "gone"}
        fact(roster, float(at_s))
        rows = roster.rows(100.0)
        assert before <= {(row.address, row.port) for row in rows}
        assert {row.address for row in rows} == {place.host for place in roster.places()}
        for row in rows:
            assert row.answers == (row.silent_s is None)
            assert not row.answers or (row.boot and row.state in ("ready", "busy", "draining"))


OTHER = Place(HOST, 40000)


@pytest.mark.parametrize(
    ("named_refused", "other_refused", "shown"),
    [(False, False, [PORT]), (True, False, [PORT]), (False, True, [OTHER.port]), (True, True, [PORT])],
)
def test_a_guess_of_ours_is_shown_only_where_somebody_there_refuses_us(
    named_refused: bool, other_refused: bool, shown: list[int]
) -> None:
    roster = Roster()
    roster.named(PLACE, "localhost", 0.0, guessed=True)
    roster.guessed(OTHER, 0.0)
    roster.fell_silent(PLACE, REASON, 1.0, refused=named_refused)
    roster.fell_silent(OTHER, REASON, 1.0, refused=other_refused)
    assert [row.port for row in roster.rows(2.0)] == shown
    roster.welcomed(OTHER, welcome(), 3.0)
    assert [row.port for row in roster.rows(4.0)] == [OTHER.port]
