"""The embedded store as mem0 uses it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from afterword.shared.errors import Misconfigured
from afterword.workers.adapters.mem0.sqlite.database import Database
from afterword.workers.adapters.mem0.sqlite.ranking import Scale
from afterword.workers.adapters.mem0.sqlite.store import COLLECTION, SqliteStore
from afterword.workers.adapters.mem0.sqlite.vector_cache import VectorCache
from tests.kit.sqlite_store.hashing_embedder import DIMS, vector
from tests.kit.sqlite_store.store import found, opener, put, texts


@pytest.fixture
def open_store(tmp_path: Path) -> Iterator[Callable[[], SqliteStore]]:
    with opener(tmp_path / "memories.sqlite") as open_one_more:
        yield open_one_more


@pytest.fixture
def store(open_store: Callable[[], SqliteStore]) -> SqliteStore:
    return open_store()


def test_the_best_match_comes_first_with_its_payload(store: SqliteStore) -> None:
    put(store, "ana", "I prefer Celsius")
    put(store, "ana", "my dog is called Rex", "turn-2")
    best, other = store.search("a dog", vector("a dog"), 5, {"user_id": "ana"})
    assert best.payload == {"user_id": "ana", "data": "my dog is called Rex", "turn_id": "turn-2"}
    assert 1 >= (best.score or 0) > (other.score or 0) >= 0


def test_of_equal_matches_the_newer_comes_first(store: SqliteStore) -> None:
    for text in ("tea, I prefer", "prefer I tea", "I prefer tea"):
        put(store, "ana", text)
    best = ["I prefer tea", "prefer I tea"]
    assert found(store, "ana", "tea", most=2) == best


@pytest.mark.parametrize("cached", [True, False])
def test_what_was_said_again_is_found_once_with_a_count(store: SqliteStore, cached: bool) -> None:
    ids: list[str] = []
    for text in ("I prefer tea", "my dog is called Rex", "i PREFER  tea ", "I prefer tea\n"):
        ids.append(put(store, "ana", text, f"turn-{len(ids)}"))
        if cached:
            found(store, "ana", "tea")
    best, other = store.search("tea", vector("tea"), 9, {"user_id": "ana"})
    assert (best.id, best.payload["times_said"]) == (ids[-1], 3)
    assert (other.id, other.payload.get("times_said")) == (ids[1], None)
    assert len(texts(store, "ana")) == 4
    store.update(ids[1], payload={**best.payload, "data": "my cat"})
    assert "times_said" not in store.list({"user_id": "ana"})[0][-1].payload
    store.delete(ids[-1])
    best, _ = store.search("tea", vector("tea"), 9, {"user_id": "ana"})
    assert (best.id, best.payload["times_said"]) == (ids[2], 2)


def test_ten_thousand_repeats_leave_recall_unchanged(store: SqliteStore) -> None:
    for number in range(60):
        put(store, "ana", f"I like thing {number}")
    put(store, "ana", "good morning", "turn-0")
    asked = ["a thing", "thing 7", "what do I like?", "good evening"]
    before = [store.search(query, vector(query), 20, {"user_id": "ana"}) for query in asked]
    again = [{"user_id": "ana", "data": "Good  morning", "turn_id": f"t{n}"} for n in range(9_999)]
    ids = [f"again-{number}" for number in range(len(again))]
    store.insert([vector("good morning")] * len(again), again, ids)
    after = [store.search(query, vector(query), 20, {"user_id": "ana"}) for query in asked]
    compared = [
        [(row.payload["data"].casefold().split(), row.score) for row in rows]
        for rows in (one for many in (before, after) for one in many)
    ]
    assert compared[: len(asked)] == compared[len(asked) :]


@pytest.mark.parametrize(
    "exact", ["Zbigniew", "ana.gomez@example.org", "AB-1234/7", "284", "10.0.0.17", "मीरा", "大西"]
)
def test_an_exact_name_address_or_number_wins(store: SqliteStore, exact: str) -> None:
    for number in range(300, 400):
        put(store, "ana", f"my locker is {number}, says person{number}@example.com of AB-{number}")
    put(store, "ana", f"that was {exact}, yes")
    assert found(store, "ana", f"who or what is {exact}?", most=1) == [f"that was {exact}, yes"]


def test_a_neighbour_in_the_conversation_is_found_by_what_was_said_beside_it(
    store: SqliteStore,
) -> None:
    said = [("1", "chess club on Mondays", 0), ("1", "Yes, for years", 60)]
    said += [("2", "Sure, always", 90), ("1", "Right, daily", 99_999)]
    for number, (conversation, text, at) in enumerate(said):
        moment = datetime.fromtimestamp(at, UTC).isoformat()
        payload = {"user_id": "ana", "data": text, "created_at": moment}
        payload["conversation_id"] = conversation
        store.insert([vector(text)], [payload], [str(number)])
    scores = {row.id: row.score for row in store.search("chess", vector(""), 9, {"user_id": "ana"})}
    assert (scores["0"] or 0) > (scores["1"] or 0) > 0 == scores["2"] == scores["3"]


def test_the_newer_statement_is_found_by_the_one_that_it_replaces(store: SqliteStore) -> None:
    def score_of_the_newer(owner: str, *said: str) -> float:
        others = [*(f"car {n}" for n in range(5)), *(f"{n} cups of tea" for n in range(20))]
        for hour, text in enumerate([*others, *said, "red Volvo estate: sold"]):
            moment = datetime.fromtimestamp(7200 * hour, UTC).isoformat()
            payload = {"user_id": owner, "data": text, "created_at": moment}
            store.insert([vector(text)], [payload], [f"{owner}-{hour}"])
        rows = store.search("car", vector("car"), 40, {"user_id": owner})
        return next(row.score or 0.0 for row in rows if "sold" in row.payload["data"])

    replaced = score_of_the_newer("ana", "car: red Volvo estate", "hello")
    assert replaced > score_of_the_newer("ben", "a blue bicycle", "hello") == 0.0


def test_one_owner_never_sees_the_rows_of_another(store: SqliteStore) -> None:
    for number in range(20):
        put(store, f"user-{number % 4}", f"tea {number}")
    for number in range(4):
        assert found(store, f"user-{number}", "tea") != []
        assert all(int(text[4:]) % 4 == number for text in found(store, f"user-{number}", "tea"))
    assert found(store, "user-9", "tea") == []


@pytest.mark.parametrize("filters", [None, {}, {"run_id": "r"}, {"user_id": ""}, {"user_id": 7}])
def test_a_search_without_an_owner_is_refused(store: SqliteStore, filters: Any) -> None:
    put(store, "ana", "tea")
    with pytest.raises(ValueError, match="user_id"):
        store.search("tea", vector("tea"), 5, filters)
    with pytest.raises(ValueError, match="user_id"):
        store.list(filters)


@pytest.mark.parametrize(
    "more",
    [
        {"AND": [{"role": "user"}]},
        {"OR": [{"role": "user"}]},
        {"NOT": [{"role": "user"}]},
        {"$or": [{"role": "user"}]},
        {"role": {"eq": "user"}},
        {"role": "*"},
        {"role": ["user"]},
        {"role": None},
        {"turn_id": {"in": ["t"]}},
    ],
)
def test_filters_other_than_equality_are_refused(store: SqliteStore, more: Any) -> None:
    with pytest.raises(ValueError, match="equality"):
        store.search("tea", vector("tea"), 5, {"user_id": "ana", **more})
    with pytest.raises(ValueError, match="equality"):
        store.list({"user_id": "ana", **more})


@pytest.mark.parametrize("key", ["turn_id", "mood", "a'b", 'a"b', "$.mood", "a.b", "[0]"])
def test_a_filter_selects_by_equality_of_any_key(store: SqliteStore, key: str) -> None:
    for mood in ("good", "bad", 3):
        payload = {"user_id": "ana", "data": f"tea {mood}", key: mood}
        store.insert([vector("tea")], [payload], [f"id-{mood}"])
    filters = {"user_id": "ana", key: "bad"}
    assert [row.id for row in store.search("tea", vector("tea"), 5, filters)] == ["id-bad"]
    assert [row.id for row in store.list(filters)[0]] == ["id-bad"]


def test_storing_the_same_turn_again_adds_no_memory(store: SqliteStore) -> None:
    put(store, "ana", "I prefer Celsius", "turn-1")
    put(store, "ana", "I prefer Celsius", "turn-1")
    assert texts(store, "ana") == ["I prefer Celsius"]
    assert found(store, "ana", "Celsius") == ["I prefer Celsius"]


def test_another_turn_owner_or_text_is_another_memory(store: SqliteStore) -> None:
    put(store, "ana", "I prefer Celsius", "turn-1")
    put(store, "ana", "I prefer Celsius", "turn-2")
    put(store, "ana", "My dog is called Rex", "turn-1")
    put(store, "ben", "I prefer Celsius", "turn-1")
    put(store, "ana", "no turn at all")
    put(store, "ana", "no turn at all")
    assert len(texts(store, "ana")) == 5
    assert len(texts(store, "ben")) == 1


def test_an_insert_is_all_or_nothing(store: SqliteStore) -> None:
    put(store, "ana", "first")
    taken = store.list({"user_id": "ana"})[0][0].id
    payloads = [{"user_id": "ana", "data": "second"}, {"user_id": "ana", "data": "third"}]
    with pytest.raises(Exception, match="UNIQUE"):
        store.insert([vector("second"), vector("third")], payloads, ["new", taken])
    assert texts(store, "ana") == ["first"]


@pytest.mark.parametrize(
    "bad", [[], [0.0] * (DIMS - 1), [float("nan")] * DIMS, [[0.0] * DIMS]], ids=str
)
def test_a_vector_of_another_shape_is_refused(store: SqliteStore, bad: Any) -> None:
    with pytest.raises(ValueError, match="finite"):
        store.insert([bad], [{"user_id": "ana", "data": "tea"}], ["id"])
    with pytest.raises(ValueError, match="finite"):
        store.search("tea", bad, 5, {"user_id": "ana"})
    assert texts(store, "ana") == []


def test_a_zero_vector_can_be_stored(store: SqliteStore) -> None:
    store.insert([[0.0] * DIMS], [{"user_id": "ana", "data": "tea"}], ["id"])
    assert found(store, "ana", "tea") == ["tea"]


def test_a_memory_can_be_changed_and_deleted(store: SqliteStore) -> None:
    memory_id = put(store, "ana", "I prefer Celsius")
    put(store, "ana", "my dog is called Rex")
    assert found(store, "ana", "Kelvin")[0] != "I prefer Kelvin"
    changed = {"user_id": "ana", "data": "I prefer Kelvin"}
    store.update(memory_id, vector("I prefer Kelvin"), changed)
    assert found(store, "ana", "Kelvin")[0] == "I prefer Kelvin"
    assert sorted(texts(store, "ana")) == ["I prefer Kelvin", "my dog is called Rex"]
    row = store.get(memory_id)
    assert row is not None
    assert row.payload == changed
    store.delete(memory_id)
    store.delete(memory_id)
    assert store.get(memory_id) is None
    assert found(store, "ana", "Kelvin") == ["my dog is called Rex"]


def test_an_update_keeps_what_it_is_not_given(store: SqliteStore) -> None:
    memory_id = put(store, "ana", "I prefer Celsius")
    before = store.search("Celsius", vector("Celsius"), 1, {"user_id": "ana"})
    store.update(memory_id)
    store.update(memory_id, payload={"user_id": "ana", "data": "I prefer Celsius"})
    assert store.search("Celsius", vector("Celsius"), 1, {"user_id": "ana"}) == before
    with pytest.raises(ValueError, match="no such memory"):
        store.update("another id")


def test_the_copy_of_the_text_that_mem0_makes_is_not_kept(store: SqliteStore) -> None:
    payload = {"user_id": "ana", "data": "tea", "text_lemmatized": "tea"}
    store.insert([vector("tea")], [payload], ["id"])
    row = store.get("id")
    assert row is not None
    assert row.payload == {"user_id": "ana", "data": "tea"}


def test_a_file_has_one_collection(store: SqliteStore) -> None:
    put(store, "ana", "tea")
    store.create_col(COLLECTION, DIMS, "cosine")
    with pytest.raises(ValueError, match="one collection"):
        store.create_col("memories_entities", DIMS, "cosine")
    assert store.list_cols() == [COLLECTION]
    assert store.col_info() == {"name": COLLECTION, "count": 1, "dims": DIMS}
    store.reset()
    assert (texts(store, "ana"), found(store, "ana", "tea")) == ([], [])


def test_a_file_of_a_newer_version_is_refused_and_left_as_it_is(
    tmp_path: Path, open_store: Callable[[], SqliteStore]
) -> None:
    path = tmp_path / "memories.sqlite"
    open_store().close()
    with closing(Database(path)) as database, database.writing() as sql:
        sql.execute("PRAGMA user_version = 3")
    before = path.read_bytes()
    with pytest.raises(Misconfigured, match="version 3") as refused:
        open_store()
    assert refused.value.setting == "AFTERWORD_DATA_DIR"
    assert path.read_bytes() == before


@pytest.mark.parametrize(("embedder", "dims"), [("another", DIMS), ("hashing", DIMS + 1)])
def test_a_file_of_another_embedder_is_refused(
    tmp_path: Path, open_store: Callable[[], SqliteStore], embedder: str, dims: int
) -> None:
    open_store().close()
    with pytest.raises(Misconfigured, match="another model"):
        SqliteStore(tmp_path / "memories.sqlite", embedder=embedder, dims=dims, scale=Scale())


def test_the_vector_cache_is_bounded(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = VectorCache(DIMS, Scale(), max_memories=10)
    monkeypatch.setattr(store, "_cache", cache)
    for number in range(8):
        for cup in range(3):
            put(store, f"user-{number}", f"tea {cup}")
        assert len(found(store, f"user-{number}", "tea")) == 3
    assert sum(entry.cost for entry in cache._entries.values()) == cache._cost <= 10
    assert [len(found(store, f"user-{number}", "tea")) for number in range(8)] == [3] * 8


def test_rows_changed_by_another_process_leave_the_cache(
    open_store: Callable[[], SqliteStore],
) -> None:
    one, other = open_store(), open_store()
    tea, cello = put(one, "ana", "tea"), put(one, "ana", "cello")
    put(one, "ana", "a dog")
    assert found(other, "ana", "tea", most=1) == ["tea"]
    one.delete(tea)
    assert len(found(other, "ana", "tea", most=2)) == 2
    assert found(other, "ana", "cello", most=1) == ["cello"]
    one.update(cello, vector("a cat"), {"user_id": "ana", "data": "a cat"})
    assert len(found(other, "ana", "cello", most=2)) == 2


def test_threads_may_read_and_write_at_once(store: SqliteStore) -> None:
    seen: list[int] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.append(len(found(store, "ana", "tea", most=100)))

    def write(number: int) -> None:
        for step in range(10):
            put(store, "ana", f"tea {number} {step}")

    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    assert seen == sorted(seen)
    assert len(found(store, "ana", "tea", most=100)) == 40


def test_threads_may_change_memories_at_once(store: SqliteStore) -> None:
    def change(number: int) -> None:
        memory_id = put(store, "ana", f"tea {number}")
        for step in range(10):
            store.update(memory_id, payload={"user_id": "ana", "data": f"tea {number} {step}"})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(change, range(4)))
    assert sorted(texts(store, "ana")) == [f"tea {number} 9" for number in range(4)]


OWNERS = st.sampled_from(["ana", "ben"])
WORDS = st.sampled_from(["tea", "dog", "lisbon", "cello", "celsius"])


class TwoHandles(RuleBasedStateMachine):
    """Compares a store that is open twice, as in two processes, with a dict."""

    ids = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.opened = ExitStack()
        folder = self.opened.enter_context(TemporaryDirectory())
        open_store = self.opened.enter_context(opener(Path(folder) / "memories.sqlite"))
        self.handles = (open_store(), open_store())
        self.model: dict[str, tuple[str, str]] = {}

    @rule(target=ids, handle=st.integers(0, 1), owner=OWNERS, word=WORDS)
    def insert(self, handle: int, owner: str, word: str) -> str:
        memory_id = put(self.handles[handle], owner, word)
        self.model[memory_id] = (owner, word)
        return memory_id

    @rule(handle=st.integers(0, 1), memory_id=consumes(ids))
    def delete(self, handle: int, memory_id: str) -> None:
        self.handles[handle].delete(memory_id)
        self.model.pop(memory_id, None)

    @rule(handle=st.integers(0, 1), memory_id=ids, word=WORDS)
    def update(self, handle: int, memory_id: str, word: str) -> None:
        if memory_id in self.model:
            owner, _ = self.model[memory_id]
            payload = {"user_id": owner, "data": word}
            self.handles[handle].update(memory_id, vector(word), payload)
            self.model[memory_id] = (owner, word)

    @rule(handle=st.integers(0, 1), owner=OWNERS)
    def forget(self, handle: int, owner: str) -> None:
        self.handles[handle].erase_owner(owner)
        self.model = {key: value for key, value in self.model.items() if value[0] != owner}

    @rule(handle=st.integers(0, 1), owner=OWNERS, word=WORDS, most=st.integers(1, 8))
    def search(self, handle: int, owner: str, word: str, most: int) -> None:
        there = {text for whose, text in self.model.values() if whose == owner}
        best = found(self.handles[handle], owner, word, most)
        assert len(best) == min(most, len(there))
        assert set(best) <= there
        assert (word in best) == (word in there)

    @invariant()
    def both_list_the_same(self) -> None:
        for handle in self.handles:
            for owner in ("ana", "ben"):
                there = [text for whose, text in self.model.values() if whose == owner]
                assert sorted(texts(handle, owner)) == sorted(there)

    def teardown(self) -> None:
        self.opened.close()


TwoHandles.TestCase.settings = settings(max_examples=20, stateful_step_count=25, deadline=None)
TestTwoHandles = TwoHandles.TestCase
