"""Checking a finished run again: that its files are whole and answer every request exactly once.

Reads the store alone, and trusts nothing in it but the plan's own hashes.
"""

import hashlib

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.rows.manifest import Manifest, read_manifest
from rankflow.rows.plan import Plan, find_plan
from rankflow.rows.removal import is_removed
from rankflow.rows.verification import Verification
from rankflow.rows.verify_rows import Commits, check_rows
from rankflow.store import MissingKey, Store
from rankflow.store.commits import read_commit
from rankflow.store.layout import (
    collected_key,
    commits_prefix,
    errors_key,
    output_key,
    parse_commit_key,
    run_prefix,
    success_key,
)


def verify_run(store: Store, run_id: str) -> Verification:
    """Check manifest, results, commits, attempts and plan of a run against each other.

    Raises:
        RankflowError: STORE_UNAVAILABLE. Everything else that is wrong is a problem found.
    """
    found = Verification(run_id)
    if not store.list(run_prefix(run_id)) or is_removed(store, run_id):
        found.problem("unknown_run", f"there is nothing of a run {run_id} in {store.root}")
        return found
    plan = _plan(store, run_id, found)
    manifest = _manifest(store, run_id, found)
    if plan is None:
        return found
    found.batches = sum(entry.batches for entry in plan.ranks)
    if manifest is None:
        return found
    found.state = manifest.state
    _compare(plan, manifest, found)
    _check_published(store, manifest, found)
    commits = _commits(plan, manifest, found)
    check_rows(plan, manifest, commits, found)
    found.attempts_collected = store.exists(collected_key(run_id))
    return found


def _plan(store: Store, run_id: str, found: Verification) -> Plan | None:
    """The plan if all of it is as it was made."""
    try:
        plan = find_plan(store, run_id)
        if plan is None:
            found.problem("plan_missing", f"there is no plan of {run_id} in {store.root}")
            return None
        # Not the one that this process may have kept: its tables are to be read now.
        plan = Plan(store, plan.document)
        for rank in range(len(plan.ranks)):
            plan.batches(rank)
    except MissingKey as error:
        found.problem("plan_missing", str(error))
        return None
    except RankflowError as error:
        if error.kind is not ErrorType.PLAN_CORRUPT:
            raise
        found.problem("plan_corrupt", str(error))
        return None
    try:
        digest, _ = _digest(store, plan.requests_key)
    except MissingKey as error:
        found.problem("plan_missing", str(error))
        return None
    if digest != plan.document.requests_sha256:
        found.problem("requests_changed", f"{plan.requests_key} was changed since it was planned")
        return None
    return plan


def _manifest(store: Store, run_id: str, found: Verification) -> Manifest | None:
    try:
        manifest = read_manifest(store, run_id)
    except RankflowError as error:
        if error.kind is not ErrorType.PLAN_CORRUPT:
            raise
        found.problem("manifest_corrupt", str(error))
        return None
    if manifest is None:
        found.problem("manifest_missing", f"the run {run_id} is not finished: it has no manifest")
    return manifest


def _compare(plan: Plan, manifest: Manifest, found: Verification) -> None:
    """What manifest and plan both say has to be the same."""
    planned = {
        "runId": (plan.run_id, manifest.run_id),
        "rows": (plan.summary.rows, manifest.rows),
        "specHash": (plan.spec_hash, manifest.spec_hash),
        "inputSha256": (plan.summary.input_sha256, manifest.input_sha256),
        "model": (plan.model.model, manifest.model),
        "ranks": (
            [(entry.first_row, entry.rows) for entry in plan.ranks],
            [(part.first_row, part.rows) for part in manifest.ranks],
        ),
    }
    for name, (before, now) in planned.items():
        if before != now:
            found.problem(
                "manifest_mismatch", f"{name} is {now} in the manifest and {before} in the plan"
            )


def _check_published(store: Store, manifest: Manifest, found: Verification) -> None:
    """The files that people open have to be those that the manifest names."""
    for key, file in (
        (output_key(manifest.run_id), manifest.output),
        (errors_key(manifest.run_id), manifest.errors),
    ):
        for name in (file.path, key):
            try:
                digest, size = _digest(store, name)
            except MissingKey:
                found.problem("file_missing", f"{name} is missing")
                continue
            if size != file.size:
                found.problem("file_size", f"{name} has {size} bytes, not {file.size}")
            if digest != file.sha256:
                found.problem("file_changed", f"{name} is not what the manifest was made for")
    if not store.exists(success_key(manifest.run_id)):
        found.problem("file_missing", f"{success_key(manifest.run_id)} is missing")


def _commits(plan: Plan, manifest: Manifest, found: Verification) -> Commits:
    """All commits that can be read; every batch of a completed run needs one."""
    run_id = plan.run_id
    there = {
        name
        for key in plan.store.list(commits_prefix(run_id))
        if (name := parse_commit_key(key)) is not None
    }
    planned = {
        (rank, batch) for rank, entry in enumerate(plan.ranks) for batch in range(entry.batches)
    }
    for rank, batch in sorted(there - planned):
        found.problem("commit_unplanned", f"there is a commit of a batch {rank}-{batch}")
    if manifest.state == "completed":
        for rank, batch in sorted(planned - there):
            found.problem("commit_missing", f"the batch {rank}-{batch} has no commit")
    commits: Commits = {}
    for rank, batch in sorted(there & planned):
        try:
            commit = read_commit(plan.store, run_id, rank, batch)
        except RankflowError as error:
            if error.kind is not ErrorType.PLAN_CORRUPT:
                raise
            found.problem("commit_corrupt", str(error))
            continue
        if commit is not None:
            commits[rank, batch] = commit
    found.committed = len(commits)
    return commits


def _digest(store: Store, key: str) -> tuple[str, int]:
    """Hex sha256 and size of an object."""
    digest, size = hashlib.sha256(), 0
    for chunk in store.stream(key):
        digest.update(chunk)
        size += len(chunk)
    return digest.hexdigest(), size
