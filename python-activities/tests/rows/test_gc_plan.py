"""What a store may be freed of, and what never goes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from rankflow.rows.gc_plan import ApiBatch, Decision, StoredRun, Wanted, decide

NOW = datetime(2030, 1, 31, tzinfo=UTC)
DAY = 86_400


def run(run_id: str, days: float, **fields: Any) -> StoredRun:
    """A finished run of 100 bytes, 60 of them attempts, that ended so many days ago."""
    facts: dict[str, Any] = {
        "finished": True,
        "size": 100,
        "spare": 60,
        "spare_objects": 2,
    } | fields
    return StoredRun(run_id=run_id, modified=NOW - timedelta(days=days), **facts)


def unfinished(run_id: str, days: float, **fields: Any) -> StoredRun:
    return run(run_id, days, finished=False, spare=0, spare_objects=0, **fields)


def api(state: Any) -> ApiBatch:
    return ApiBatch(state, "api/spaces/main/batches/x", (), NOW, 10)


def decided(*runs: StoredRun, **rules: Any) -> Decision:
    return decide(runs, Wanted.model_validate({"store": "/store"} | rules), NOW)


def removed(*runs: StoredRun, **rules: Any) -> list[str]:
    return [step.run_id for step in decided(*runs, **rules).remove]


def test_without_a_rule_only_attempts_of_finished_runs_go() -> None:
    decision = decided(run("old", 400), run("new", 0.01), unfinished("half", 400))
    assert decision.remove == []
    assert [(step.run_id, step.bytes) for step in decision.collect] == [("old", 60), ("new", 60)]
    assert decision.left == 100 + 2 * 40


def test_a_run_without_leftovers_is_left_alone() -> None:
    assert decided(run("done", 1, spare=0, spare_objects=0)) == Decision(left=100)


def test_runs_older_than_so_long_go_the_oldest_first() -> None:
    runs = [run("b", 31), run("new", 29), run("a", 40)]
    decision = decided(*runs, olderThanSeconds=30 * DAY)
    assert [step.run_id for step in decision.remove] == ["a", "b"]
    assert [step.run_id for step in decision.collect] == ["new"]
    assert decision.left == 40


def test_the_newest_runs_are_kept() -> None:
    runs = [run(f"day-{n:02d}", n) for n in range(1, 6)]
    assert removed(*runs, keepLast=2) == ["day-05", "day-04", "day-03"]
    assert removed(*runs, keepLast=9) == []


def test_the_oldest_go_until_the_store_is_small_enough() -> None:
    runs = [run("a", 3), run("b", 2), run("c", 1), unfinished("half", 9)]
    assert removed(*runs, maxBytes=220) == []
    assert removed(*runs, maxBytes=219) == ["a"]
    assert removed(*runs, maxBytes=150) == ["a", "b"]
    # Nobody asked for the unfinished one.
    decision = decided(*runs, maxBytes=0)
    assert ([step.run_id for step in decision.remove], decision.left) == (["a", "b", "c"], 100)


def test_a_run_that_has_just_finished_stays() -> None:
    decision = decided(run("new", 0.5 / 24), keepLast=0, maxBytes=0, olderThanSeconds=0)
    assert decision.remove == []
    assert decision.kept == {"new": "it finished less than an hour ago"}


def test_an_unfinished_run_goes_only_when_asked_for_and_when_nobody_works_at_it() -> None:
    half = unfinished("half", 40)
    assert removed(half, keepLast=0, maxBytes=0, olderThanSeconds=0) == []
    rule = {"unfinishedOlderThanSeconds": 30 * DAY}
    assert removed(half, asked=["half"], **rule) == ["half"]
    assert removed(unfinished("half", 29), asked=["half"], **rule) == []
    for fields, reason in (
        ({"asked": ["half"], "running": ["half"]}, "its workflow runs"),
        ({"asked": ["other"]}, "Temporal was not asked for it"),
        ({}, "Temporal does not answer, so its workflow may be running"),
    ):
        decision = decided(half, **rule, **fields)
        assert (decision.remove, decision.kept) == ([], {"half": reason})


def test_a_finished_run_whose_workflow_still_runs_stays() -> None:
    rule = {"olderThanSeconds": 30 * DAY, "asked": ["a", "b"], "running": ["a"]}
    decision = decided(run("a", 40), run("b", 40), **rule)
    assert [step.run_id for step in decision.remove] == ["b"]
    assert decision.kept == {"a": "its workflow runs"}


def test_a_run_stays_while_another_retries_it() -> None:
    rule = {"olderThanSeconds": 30 * DAY}
    for retry in (run("retry", 10, retry_of="a"), unfinished("retry", 90, retry_of="a")):
        decision = decided(run("a", 40), retry, **rule)
        assert decision.remove == []
        assert decision.kept == {"a": "retry retries it"}
    chain = [run("a", 50), run("b", 40, retry_of="a"), run("c", 10, retry_of="b")]
    assert removed(*chain, **rule) == []


def test_retries_go_before_what_they_retry() -> None:
    runs = [run("a", 50), run("b", 40, retry_of="a"), run("c", 35, retry_of="b"), run("d", 60)]
    assert removed(*runs, olderThanSeconds=30 * DAY) == ["d", "c", "b", "a"]


def test_for_room_a_run_is_skipped_until_its_retries_go() -> None:
    runs = [run("a", 50), run("b", 40), run("c", 30, retry_of="a"), run("d", 20)]
    assert removed(*runs, maxBytes=120) == ["b"]
    assert removed(*runs, maxBytes=119) == ["c", "a", "b"]


def test_runs_that_retry_each_other_do_not_hang_it() -> None:
    runs = [run("a", 50, retry_of="b"), run("b", 40, retry_of="a"), run("c", 40, retry_of="c")]
    assert sorted(removed(*runs, olderThanSeconds=0)) == ["a", "b", "c"]


def test_runs_of_schedules_and_of_the_batch_api_are_their_owners() -> None:
    night, batch = run("night", 90, schedule="nightly"), run("batch_1", 90, batch=api("listed"))
    rules = {"olderThanSeconds": 0, "keepLast": 0, "maxBytes": 0}
    decision = decided(night, batch, **rules)
    assert decision.remove == []
    assert set(decision.kept) == {"night", "batch_1"}
    # Their attempts are nobody's.
    assert [step.run_id for step in decision.collect] == ["batch_1", "night"]
    assert removed(night, batch, **rules, scheduled=True) == ["night"]
    assert removed(night, batch, **rules, batches=True) == ["batch_1"]
    # They do not count among those that are kept.
    assert removed(night, run("a", 95), run("b", 96), keepLast=1) == ["b"]


def test_a_batch_whose_results_are_gone_is_a_run_like_any_other() -> None:
    states = ("open", "listed", "released")
    batches = [run(state, 90, batch=api(state)) for state in states]
    assert removed(*batches) == []
    for rule in ({"olderThanSeconds": 30 * DAY}, {"keepLast": 0}, {"maxBytes": 0}):
        assert removed(*batches, **rule) == ["released"]
        assert removed(*batches, **rule, batches=True) == ["listed", "released"]
    decision = decided(*batches, olderThanSeconds=0, batches=True)
    assert decision.kept == {"open": "it is a batch of the batch API that has not ended"}
    assert removed(run("new", 0.5 / 24, batch=api("released")), olderThanSeconds=0) == []
    # One that failed before it had a run has records only.
    failed = unfinished("failed", 90, batch=api("released"))
    assert removed(failed, olderThanSeconds=0, keepLast=0, maxBytes=0) == []
    assert removed(failed, unfinishedOlderThanSeconds=0, asked=["failed"]) == ["failed"]


def test_what_is_not_whole_keeps_its_attempts() -> None:
    decision = decided(run("a", 1, damaged="its results are not published yet"))
    assert decision.collect == []
    assert decision.kept == {"a": "its results are not published yet"}
    assert decision.left == 100


def test_a_removal_that_was_broken_off_is_ended_whatever_the_rules_are() -> None:
    assert removed(unfinished("half-gone", 0, removing=True)) == ["half-gone"]
    decision = decided(run("whole", 1, marked=True))
    assert (decision.remove, decision.unmark) == ([], ["whole"])
