"""Names: ids that lead home, keys that never run together."""

from __future__ import annotations

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from afterword.shared.errors import JobNotFound
from afterword.shared.names import (
    MAX_SHARDS,
    Keys,
    bare_memory_key,
    check_job_id,
    lane_id,
    memory_key,
    new_job_id,
    owner_of,
    queue_list,
    shard_in,
    shard_of,
)

PARTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)
SHARDS = st.integers(0, MAX_SHARDS - 1)


@given(PARTS, PARTS, PARTS, PARTS)
@example("a/b", "c", "a", "b/c")
@example("a%2Fb", "c", "a/b", "c")
@example("a", "/b", "a/", "b")
@example("a ", "b", "a", " b")
def test_no_two_users_share_a_memory_key(t1: str, u1: str, t2: str, u2: str) -> None:
    assert (memory_key(t1, u1) == memory_key(t2, u2)) == ((t1, u1) == (t2, u2))


@pytest.mark.finding(9)
@given(PARTS | st.just("default"), PARTS, PARTS | st.just("default"), PARTS)
@example("default", "a%2Fb", "default", "a/b")
@example("default", "a/b", "a", "b")
@example("default", "a b", "default", "a%20b")
@example("default", " a", "default", "a")
@example("default", "default/a", "default", "a")
def test_no_two_users_share_a_bare_memory_key(t1: str, u1: str, t2: str, u2: str) -> None:
    keys = [bare_memory_key(memory_key(tenant, user)) for tenant, user in ((t1, u1), (t2, u2))]
    assert (keys[0] == keys[1]) == ((t1, u1) == (t2, u2))
    assert keys[0] == "".join(keys[0].split()), "mem0 takes it as it is"


@pytest.mark.finding(9)
@pytest.mark.parametrize("user_id", ["ann", "ann@example.org", "auth0|5f", "é", "a+b"])
def test_a_bare_memory_key_is_the_id_as_it_was_passed(user_id: str) -> None:
    assert bare_memory_key(memory_key("default", user_id)) == user_id
    assert bare_memory_key(memory_key("acme", user_id)) == memory_key("acme", user_id)


@given(PARTS, PARTS)
def test_a_memory_key_is_something_mem0_takes_as_it_is(tenant: str, user_id: str) -> None:
    key = memory_key(tenant, user_id)

    assert key.isascii()
    assert key == "".join(key.split())
    assert key.count("/") == 1


@given(SHARDS)
def test_a_job_id_says_where_it_lives(shard: int) -> None:
    job_id = new_job_id(shard)

    assert shard_in(job_id) == shard
    assert check_job_id(job_id) == job_id


def test_job_ids_are_never_the_same() -> None:
    assert len({new_job_id(0) for _ in range(1000)}) == 1000


@given(PARTS, PARTS, SHARDS)
def test_a_lane_says_where_it_lives_and_whose_it_is(tenant: str, user_id: str, shard: int) -> None:
    owner = memory_key(tenant, user_id)
    lane = lane_id(owner, shard)

    assert (shard_in(lane), owner_of(lane)) == (shard, owner)
    assert lane[0] != new_job_id(shard)[0]


@given(PARTS, st.integers(1, MAX_SHARDS))
def test_an_owner_always_has_the_same_shard(owner: str, shards: int) -> None:
    assert 0 <= shard_of(owner, shards) < shards
    assert shard_of(owner, shards) == shard_of(owner, shards)


def test_owners_are_spread_over_the_shards() -> None:
    counts = [0] * 8
    for number in range(8000):
        counts[shard_of(f"default/user-{number}", 8)] += 1

    assert min(counts) > 800


GOOD = "j03_446cc239c6ed2dfea851a9a29125ffa0"


@pytest.mark.parametrize(
    "bad",
    [
        "", "j", GOOD[:-1], GOOD + "0", "x" + GOOD[1:], "l" + GOOD[1:], GOOD.upper(),
        GOOD[:-1] + "g", GOOD[:-1] + "\n", GOOD[:-32] + "+" + GOOD[-31:],
        GOOD[:-32] + " " + GOOD[-31:], GOOD[:-32] + "0x" + GOOD[-30:], GOOD[:-2] + "_1",
        "j 3" + GOOD[3:], "j03x" + GOOD[4:], "j\u0660\u0663" + GOOD[3:],
        None, 7, b"j03_" + b"0" * 32,
    ],
)  # fmt: skip
def test_an_invalid_job_id_is_not_found(bad: object) -> None:
    with pytest.raises(JobNotFound):
        check_job_id(bad)  # type: ignore[arg-type]


@given(st.text(max_size=50))
def test_no_text_breaks_the_check(text: str) -> None:
    assume(text != GOOD)
    with pytest.raises(JobNotFound) as caught:
        check_job_id(text)
    assert len(caught.value.job_id) <= 64


def test_every_key_of_a_shard_carries_its_hash_tag() -> None:
    keys = Keys("ns", 10)

    for key in (keys.job("j"), keys.events("j"), keys.wake("j"), keys.dead_turns, keys.fenced):
        assert key.startswith("ns:{0a}:")


def test_queues_are_named_as_kombu_names_them() -> None:
    from kombu.transport.redis import Channel

    for step in (0, 3, 6):
        kombus = f"ns:replies{Channel.sep}{step}" if step else "ns:replies"
        assert queue_list("ns", "replies", step) == kombus


def test_every_namespace_has_lists_of_its_own() -> None:
    assert queue_list("afterword", "replies", 0) == "afterword:replies"
    assert queue_list("other", "replies", 0) == "other:replies"
