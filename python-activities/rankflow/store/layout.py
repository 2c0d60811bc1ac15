"""Keys of a run in the store. Nothing else in the code spells one out."""

import re

from rankflow.contracts.errors import ErrorType, RankflowError

RUNS = "runs"
SCHEDULES = "schedules"
API_SPACES = "api/spaces"
"""Records of the batch API, a folder for each namespace; its server writes them."""
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SCHEDULE = re.compile(r"[a-z0-9][a-z0-9-]{0,47}")
_TOKEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_COMMIT = re.compile(r"(\d+)-(\d+)\.json")
_JOURNAL = re.compile(r"(.+)\.(\d+)\.json")


def run_prefix(run_id: str) -> str:
    """Folder of a run. Raises RUN_MISMATCH for an id that could name another folder."""
    if _RUN_ID.fullmatch(run_id) is None:
        raise RankflowError(ErrorType.RUN_MISMATCH, f"{run_id!r} is not a run id")
    return f"{RUNS}/{run_id}"


def batch_name(rank: int, batch: int) -> str:
    """Name of a batch; zero-padded, so that names sort as numbers do up to 9999 ranks."""
    return f"{rank:04d}-{batch:06d}"


def plan_key(run_id: str) -> str:
    """The plan; it names the requests and rank tables, so its presence makes them visible."""
    return f"{run_prefix(run_id)}/plan.json"


def planners_prefix(run_id: str) -> str:
    """Folder of the work of all planners."""
    return f"{run_prefix(run_id)}/plan"


def planner_prefix(run_id: str, token: str) -> str:
    """Folder of one planner's work; that of a planner that was killed is never read."""
    return f"{planners_prefix(run_id)}/{_checked(token)}"


def requests_key(run_id: str, token: str) -> str:
    """Normalised requests, one OpenAI Batch line a row."""
    return f"{planner_prefix(run_id, token)}/requests.jsonl"


def rank_table_key(run_id: str, token: str, rank: int) -> str:
    """Batch table of a rank: a JSON array of [offset, length, firstRow, rows, tokens]."""
    return f"{planner_prefix(run_id, token)}/rank-{rank:04d}.json"


def attempts_prefix(run_id: str, rank: int, batch: int) -> str:
    """Folder of all attempts of a batch."""
    return f"{all_attempts_prefix(run_id)}/{batch_name(rank, batch)}"


def all_attempts_prefix(run_id: str) -> str:
    """Folder of the attempts of all batches."""
    return f"{run_prefix(run_id)}/attempts"


def all_journals_prefix(run_id: str) -> str:
    """Folder of the journals of all batches."""
    return f"{run_prefix(run_id)}/journals"


def attempt_key(run_id: str, rank: int, batch: int, token: str) -> str:
    """Attempt file of one activity attempt: one line a finished row."""
    return f"{attempts_prefix(run_id, rank, batch)}/{_checked(token)}.jsonl"


def journals_prefix(run_id: str, rank: int, batch: int) -> str:
    """Folder of the journals of all attempts of a batch; attempts hold nothing but answers."""
    return f"{all_journals_prefix(run_id)}/{batch_name(rank, batch)}"


def journal_key(run_id: str, rank: int, batch: int, token: str, entry: int) -> str:
    """One entry, from 0, of the journal of an attempt."""
    return f"{journals_prefix(run_id, rank, batch)}/{_checked(token)}.{entry:04d}.json"


def parse_journal_key(key: str) -> tuple[str, int] | None:
    """Token and entry of a journal's key, or None for a foreign file."""
    match = _JOURNAL.fullmatch(key.rpartition("/")[2])
    return None if match is None else (match[1], int(match[2]))


def commits_prefix(run_id: str) -> str:
    """Folder of all commits of a run."""
    return f"{run_prefix(run_id)}/commits"


def commit_key(run_id: str, rank: int, batch: int) -> str:
    """Commit of a batch."""
    return f"{commits_prefix(run_id)}/{batch_name(rank, batch)}.json"


def parse_commit_key(key: str) -> tuple[int, int] | None:
    """Rank and batch of a commit's key, or None for a foreign file."""
    match = _COMMIT.fullmatch(key.rpartition("/")[2])
    return None if match is None else (int(match[1]), int(match[2]))


def finals_prefix(run_id: str) -> str:
    """Folder of the files of all finalizers."""
    return f"{run_prefix(run_id)}/final"


def final_key(run_id: str, token: str, name: str) -> str:
    """A file of one finalizer; only the one that the manifest names counts."""
    return f"{finals_prefix(run_id)}/{_checked(token)}/{name}"


def manifest_key(run_id: str) -> str:
    """The manifest: the only pointer to the results that readers trust."""
    return f"{run_prefix(run_id)}/manifest.json"


def output_key(run_id: str) -> str:
    """Successful rows, for people; the manifest names the file that counts."""
    return f"{run_prefix(run_id)}/output.jsonl"


def errors_key(run_id: str) -> str:
    """Failed rows, for people; the manifest names the file that counts."""
    return f"{run_prefix(run_id)}/errors.jsonl"


def success_key(run_id: str) -> str:
    """Empty marker for tools that look for one; written after the manifest."""
    return f"{run_prefix(run_id)}/_SUCCESS"


def retry_input_key(run_id: str) -> str:
    """The requests of a run that retries the failed rows of another."""
    return f"{run_prefix(run_id)}/retry-input.jsonl"


def retry_link_key(run_id: str) -> str:
    """Whose failed rows a run retries."""
    return f"{run_prefix(run_id)}/retry-of.json"


def collected_key(run_id: str) -> str:
    """There once the attempts of a finished run are being collected, or are gone."""
    return f"{run_prefix(run_id)}/collected.json"


def removing_key(run_id: str) -> str:
    """There while a run is being removed; without a manifest the run is gone then."""
    return f"{run_prefix(run_id)}/removing.json"


def schedule_prefix(schedule: str) -> str:
    """Folder of the records of a schedule's runs."""
    if _SCHEDULE.fullmatch(schedule) is None:
        raise RankflowError(ErrorType.INVALID_REQUEST, f"{schedule!r} is not a schedule's name")
    return f"{SCHEDULES}/{schedule}"


def schedule_record_key(schedule: str, run_id: str) -> str:
    """Record of one run of a schedule."""
    run_prefix(run_id)
    return f"{schedule_prefix(schedule)}/{run_id}.json"


def fence_probe_key(run_id: str, token: str) -> str:
    """A file that is there only while a planner makes sure of its store."""
    return f"{fence_probes(run_id)}{_checked(token)}"


def fence_probes(run_id: str) -> str:
    """How the keys of all such files begin."""
    return f"{run_prefix(run_id)}/fence-probe-"


def room_probe_key(run_id: str) -> str:
    """A file that is there only while a look at a full store writes it."""
    return f"{run_prefix(run_id)}/room-probe"


def _checked(token: str) -> str:
    if _TOKEN.fullmatch(token) is None or ".." in token:
        raise RankflowError(ErrorType.PLAN_CORRUPT, f"{token!r} is not an attempt token")
    return token
