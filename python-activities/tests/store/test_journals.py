"""Journals are read back whole, from any store, and nobody takes them for answers."""

from rankflow.store import Store
from rankflow.store.journals import AttemptJournal, End, JournalEntry, read_journals
from rankflow.store.layout import attempts_prefix, journal_key, journals_prefix, parse_journal_key
from rankflow.store.salvage import salvage

WHERE = ("r", 0, 3)


def write(store: Store, token: str, *entries: JournalEntry) -> None:
    for number, entry in enumerate(entries):
        data = entry.model_dump_json(exclude_defaults=True).encode()
        assert store.create(journal_key(*WHERE, token, number), data)


def test_journals_of_a_batch_are_read_back_by_attempt(store: Store) -> None:
    start = JournalEntry(engine="e1", alone=False, handed=[(0, 4), (7, 7)])
    write(store, "wf-1.x-1", start)
    write(store, "wf-1.x-2", start, JournalEntry(engine="e2", alone=False, end=End.RELEASED))
    found = sorted(read_journals(store, *WHERE), key=lambda journal: journal.token)
    rows = frozenset({0, 1, 2, 3, 4, 7})
    assert found == [
        AttemptJournal("wf-1.x-1", "e1", False, rows, frozenset(), None),
        AttemptJournal("wf-1.x-2", "e2", False, rows, frozenset(), End.RELEASED),
    ]
    assert read_journals(store, "r", 0, 4) == []


def test_entries_are_in_the_order_in_which_they_were_written(store: Store) -> None:
    groups = [JournalEntry(engine="e", alone=True, handed=[(row, row)]) for row in range(12)]
    write(store, "t", *groups)
    (journal,) = read_journals(store, *WHERE)
    assert journal.handed == frozenset({11})


def test_what_is_no_journal_entry_speaks_for_nobody(store: Store) -> None:
    write(store, "t", JournalEntry(engine="e", alone=False, handed=[(1, 1)]))
    store.put(journal_key(*WHERE, "t", 1), b'{"engine": ')
    store.put(journal_key(*WHERE, "other", 0), b"[]")
    store.put(f"{journals_prefix(*WHERE)}/notes.txt", b"somebody's own file")
    (journal,) = read_journals(store, *WHERE)
    assert (journal.token, journal.end) == ("t", None)


def test_a_journal_is_neither_an_attempt_nor_salvaged(store: Store) -> None:
    write(store, "t", JournalEntry(engine="e", alone=False, handed=[(1, 1)]))
    assert store.list_appended(attempts_prefix(*WHERE)) == []
    assert salvage(store, *WHERE) == {}


def test_tokens_with_dots_come_back_from_their_keys() -> None:
    assert parse_journal_key(journal_key(*WHERE, "a.b-1", 12)) == ("a.b-1", 12)
    assert parse_journal_key("runs/r/journals/0000-000003/a.json") is None
