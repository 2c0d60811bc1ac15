"""Everything wrong with an input, collected before anything is refused. Never carries a prompt."""

from typing import Any

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.contracts.models import InputProblem

KEPT_PROBLEMS = 1000
"""Problems listed in full; the rest are only counted, so that a refusal stays far below 2 MB."""
_MESSAGE_CHARACTERS = 400


class RowProblem(Exception):
    """One thing wrong with one row: a stable code and a message without the prompt."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.also: list[RowProblem] = []
        """More that is wrong with the same row, found at the same time."""
        # Half surrogate pairs, which JSON allows, can be written nowhere.
        self.message = message[:_MESSAGE_CHARACTERS].encode(errors="replace").decode()

    def __reduce__(self) -> tuple[Any, ...]:
        return RowProblem, (self.code, self.message), {"also": self.also}

    @property
    def all(self) -> list["RowProblem"]:
        """This one and what else is wrong with the row."""
        return [self, *self.also]


def raise_all(found: list[RowProblem]) -> None:
    """Raise the first problem of a row with the others in its ``also``, if there is one."""
    if found:
        first, *rest = found
        first.also = rest
        raise first


class ProblemLog:
    """The first problems in full and the number of all."""

    def __init__(self) -> None:
        self.kept: list[InputProblem] = []
        self.total = 0

    def add(self, line: int, problem: RowProblem, custom_id: str | None = None) -> None:
        """Record a problem of a line (1-based; 0 for the whole input)."""
        self.total += 1
        if len(self.kept) < KEPT_PROBLEMS:
            self.kept.append(
                InputProblem(
                    line=line, custom_id=custom_id, code=problem.code, message=problem.message
                )
            )

    def as_details(self) -> dict[str, Any]:
        """{"problems": the first ones in full, "total": how many there are}."""
        kept = [problem.model_dump(by_alias=True, exclude_none=True) for problem in self.kept]
        return {"problems": kept, "total": self.total}

    def refusal(self) -> RankflowError:
        """The error that lists them: INVALID_INPUT with ``details`` {"problems", "total"}."""
        first = self.kept[0]
        where = f"line {first.line}: " if first.line else ""
        more = f" (and {self.total - 1} more)" if self.total > 1 else ""
        return RankflowError(
            ErrorType.INVALID_INPUT,
            f"the input has {self.total} problem{'s' if self.total > 1 else ''}: "
            f"{where}{first.message}{more}",
            self.as_details(),
        )


def whole_input(code: str, message: str) -> RankflowError:
    """INVALID_INPUT for a problem of the input as a whole."""
    log = ProblemLog()
    log.add(0, RowProblem(code, message))
    return log.refusal()
