"""What checking a finished run again has found."""

from dataclasses import dataclass, field
from typing import Any

SHOWN_PROBLEMS = 100
"""Problems that are told one by one; the rest are counted."""


@dataclass
class Verification:
    """What was found. The run is as it should be when there are no problems."""

    run_id: str
    state: str | None = None
    rows: int = 0
    succeeded: int = 0
    failed: int = 0
    batches: int = 0
    committed: int = 0
    attempts_collected: bool = False
    """The attempts are gone or going, so that results were compared with the manifest alone."""
    total_problems: int = 0
    problems: list[dict[str, str]] = field(default_factory=list[dict[str, str]])

    def problem(self, code: str, message: str) -> None:
        """Note one problem."""
        self.total_problems += 1
        if len(self.problems) < SHOWN_PROBLEMS:
            self.problems.append({"code": code, "message": message})

    def as_json(self) -> dict[str, Any]:
        """For the command line."""
        return {
            "runId": self.run_id,
            "valid": self.total_problems == 0,
            "state": self.state,
            "rows": self.rows,
            "succeeded": self.succeeded,
            "failed": self.failed,
            "batches": self.batches,
            "committed": self.committed,
            "attemptsCollected": self.attempts_collected,
            "totalProblems": self.total_problems,
            "problems": self.problems,
        }
