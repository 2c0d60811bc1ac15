"""The rows of a finished run, checked against its plan and its committed attempts.

Plan, attempts and results are walked through together, one batch in memory at a time. Only when the
results do not go on as planned are all ids collected, to say which ones are wrong.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator
from typing import Any, cast

import msgspec

from rankflow.rows.manifest import Manifest, RankResult, ResultFile
from rankflow.rows.plan import BatchSlice, Plan
from rankflow.rows.verification import Verification
from rankflow.store import MissingKey, Store
from rankflow.store.attempt_lines import AttemptLine, RowCounts
from rankflow.store.commits import Commit
from rankflow.store.json_text import as_json
from rankflow.store.layout import collected_key
from rankflow.store.salvage import salvage

Commits = dict[tuple[int, int], Commit]

_SHOWN_IDS = 5


def check_rows(plan: Plan, manifest: Manifest, commits: Commits, found: Verification) -> None:
    """Note every row that has no result, or more than one, or another than was committed."""
    try:
        walk = _Walk(plan, manifest, commits, found)
        orderly = walk.to_the_end()
    except MissingKey:
        # That a result file is missing was told when it was hashed.
        return
    if orderly:
        walk.check_counts()
    else:
        _explain(plan, manifest, found)


class _Walk:
    def __init__(
        self, plan: Plan, manifest: Manifest, commits: Commits, found: Verification
    ) -> None:
        self._plan = plan
        self._manifest = manifest
        self._commits = commits
        self._found = found
        self._output = _Lines(plan.store, manifest.output)
        self._errors = _Lines(plan.store, manifest.errors)
        self._committed = Counter[str]()
        self._salvageable = Counter[str]()
        self._countable = True
        """Whether every batch can be counted: no attempt of it is missing or changed."""
        self._bounded = True
        """Whether what uncommitted attempts had finished can be counted, too."""

    def to_the_end(self) -> bool:
        """False as soon as the results do not go on with the next row of the plan."""
        for rank in range(len(self._plan.ranks)):
            before = self._output.offset, self._errors.offset
            for part in self._plan.batches(rank):
                if not self._check_batch(part):
                    return False
            self._check_rank(rank, *before)
        return self._output.ended() and self._errors.ended()

    def _check_rank(self, rank: int, output: int, errors: int) -> None:
        told = next((part for part in self._manifest.ranks if part.rank == rank), None)
        entry = self._plan.ranks[rank]
        counted = RankResult(
            rank=rank,
            first_row=entry.first_row,
            rows=entry.rows,
            output_offset=output,
            output_length=self._output.offset - output,
            errors_offset=errors,
            errors_length=self._errors.offset - errors,
        )
        if told is not None and told != counted:
            self._found.problem(
                "rank_ranges", f"the manifest says wrongly where the rows of rank {rank} are"
            )

    def _check_batch(self, part: BatchSlice) -> bool:
        commit = self._commits.get((part.rank, part.batch))
        attempt = self._attempt(part, commit)
        for row, head in zip(part.row_range, self._plan.read_heads(part), strict=True):
            custom_id = head.custom_id
            line = attempt.get(row)
            if line is not None:
                file = self._errors if line.failed else self._output
            elif head.error is None and self._output.head_id() == custom_id:
                file = self._output
            else:
                file = self._errors
            if file.ended() or file.head_id() != custom_id:
                return False
            if line is not None and file.head() != line.output:
                self._found.problem(
                    "answer_changed", f"row {row} ({custom_id}) is not what its batch committed"
                )
            file.take()
        return True

    def _attempt(self, part: BatchSlice, commit: Commit | None) -> dict[int, AttemptLine]:
        """Lines of a committed attempt by row; empty when there is none to rely on."""
        store, run_id = self._plan.store, self._plan.run_id
        if commit is None:
            # A run that ended early counts what attempts had finished without a commit.
            taken = salvage(store, run_id, part.rank, part.batch, part.row_range)
            for counts, _ in taken.values():
                self._salvageable.update(_tokens(counts))
            self._countable &= self._manifest.state != "completed"
            self._bounded &= not self._collected()
            return {}
        name = f"batch {part.rank}-{part.batch}"
        try:
            data = store.read_attempt(commit.path)
        except MissingKey:
            if self._collected():
                return self._trust(part, commit)
            return self._distrust("attempt_missing", f"{commit.path} of {name} is missing")
        if hashlib.sha256(data).hexdigest() != commit.sha256:
            # Of an attempt in a bucket some segments may have gone before the others.
            if self._collected():
                return self._trust(part, commit)
            return self._distrust("attempt_changed", f"{commit.path} of {name} was changed")
        lines: dict[int, AttemptLine] = {}
        for text in data.splitlines(keepends=True):
            line = AttemptLine.parse(text)
            if line is None or line.row in lines or line.row not in part.row_range:
                return self._distrust(
                    "attempt_rows", f"{commit.path} has a line that is no row of {name}, or twice"
                )
            lines[line.row] = line
        tokens = sum((_tokens(line) for line in lines.values()), Counter[str]())
        failed = sum(line.failed for line in lines.values())
        self._check_commit(
            part, commit, (len(lines), failed, tokens["prompt"], tokens["completion"])
        )
        self._committed.update(tokens)
        return lines

    def _check_commit(
        self, part: BatchSlice, commit: Commit, counted: tuple[int, int, int, int]
    ) -> None:
        told = (commit.rows, commit.failed_rows, commit.prompt_tokens, commit.completion_tokens)
        if counted != told or counted[0] != part.rows:
            self._found.problem(
                "commit_counts",
                f"batch {part.rank}-{part.batch} commits {told} rows, failed rows, prompt and "
                f"completion tokens; its attempt has {counted}, and {part.rows} rows were planned",
            )

    def _collected(self) -> bool:
        """Whether attempts may be missing for a good reason; asked when one is."""
        return self._plan.store.exists(collected_key(self._plan.run_id))

    def _trust(self, part: BatchSlice, commit: Commit) -> dict[int, AttemptLine]:
        """Without its attempt a commit speaks for itself; sums and hashes still have to fit."""
        told = (part.rows, commit.failed_rows, commit.prompt_tokens, commit.completion_tokens)
        self._check_commit(part, commit, told)
        self._committed.update(prompt=commit.prompt_tokens, completion=commit.completion_tokens)
        return {}

    def _distrust(self, code: str, message: str) -> dict[int, AttemptLine]:
        self._found.problem(code, message)
        self._countable = False
        return {}

    def check_counts(self) -> None:
        """Compare what the manifest counts with what was walked through."""
        manifest, found = self._manifest, self._found
        succeeded, failed = self._output.taken, self._errors.taken
        found.rows, found.succeeded, found.failed = succeeded + failed, succeeded, failed
        counts = {
            "rows": (manifest.rows, found.rows),
            "succeeded": (manifest.succeeded, succeeded),
            "failed": (manifest.failed, failed),
            "output.rows": (manifest.output.rows, succeeded),
            "errors.rows": (manifest.errors.rows, failed),
        }
        for name, (told, counted) in counts.items():
            if told != counted:
                found.problem("counts", f"{name} is {told} in the manifest and {counted} in fact")
        for kind, told in (
            ("prompt", manifest.prompt_tokens),
            ("completion", manifest.completion_tokens),
        ):
            least = self._committed[kind]
            # An attempt may have gone on a little after a run that ended early was assembled.
            most = least + self._salvageable[kind] if self._bounded else told
            if self._countable and not least <= told <= most:
                found.problem(
                    "counts", f"{told} {kind} tokens are in the manifest and {least} in fact"
                )


def _explain(plan: Plan, manifest: Manifest, found: Verification) -> None:
    """Say which ids have no result, more than one, are unknown, or are out of order."""
    planned = [
        head.custom_id
        for rank in range(len(plan.ranks))
        for part in plan.batches(rank)
        for head in plan.read_heads(part)
    ]
    files = manifest.output, manifest.errors
    results = [custom_id for file in files for custom_id in _Lines(plan.store, file).ids()]
    found.rows = len(results)
    asked, answered = Counter(planned), Counter(results)
    missing, extra = asked - answered, answered - asked
    for code, text, ids in (
        ("rows_missing", "have no result", list(missing)),
        ("rows_repeated", "have more than one result", [one for one in extra if one in asked]),
        ("rows_unknown", "are no requests of this run", [i for i in extra if i not in asked]),
    ):
        if ids:
            more = ", …" if len(ids) > _SHOWN_IDS else ""
            shown = ", ".join(map(str, ids[:_SHOWN_IDS]))
            found.problem(code, f"{len(ids)} ids {text}: {shown}{more}")
    if not missing and not extra:
        found.problem("rows_order", "the results are not in the order of the input")


class _Lines:
    """The lines of a result file, one at a time."""

    def __init__(self, store: Store, file: ResultFile) -> None:
        self._lines = _split(store.stream(file.path))
        self._line: bytes | None = b""
        self._head: dict[str, Any] | None = None
        self.taken = 0
        self.offset = 0
        """Bytes of the lines that were taken."""

    def head(self) -> dict[str, Any] | None:
        """The next line; an empty object for one that is no JSON object; None at the end."""
        if self._head is None and self._line is not None:
            self._line = next(self._lines, None)
            self._head = None if self._line is None else _object(self._line)
        return self._head

    def head_id(self) -> Any:
        """``custom_id`` of the next line."""
        return (self.head() or {}).get("custom_id")

    def ended(self) -> bool:
        """Whether there is no next line."""
        return self.head() is None

    def take(self) -> None:
        """Go to the next line."""
        self.offset += len(self._line or b"")
        self.taken += 1
        self._head = None

    def ids(self) -> Iterator[Any]:
        """``custom_id`` of all lines that are left."""
        while not self.ended():
            yield self.head_id()
            self.take()


def _split(chunks: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line + b"\n" for line in lines)
    if rest:
        yield rest


def _object(line: bytes) -> dict[str, Any]:
    try:
        value: Any = msgspec.json.decode(line)
    except (msgspec.MsgspecError, ValueError):
        try:
            value = msgspec.json.decode(as_json(line))
        except ValueError:
            return {}
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _tokens(line: RowCounts) -> Counter[str]:
    return Counter(prompt=line.prompt_tokens, completion=line.completion_tokens)
