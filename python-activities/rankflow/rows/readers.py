"""Rows of every input format, one at a time, each with its line number or what is wrong with it."""

import csv
import json
import math
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, NoReturn, cast

import msgspec

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.contracts.models import InputSpec
from rankflow.rows.problems import RowProblem, whole_input

LINE_BYTES = 16 * 1024 * 1024
"""Longest line that is read; longer ones are reported and skipped without being held in memory."""
_BOM = b"\xef\xbb\xbf"

Format = Literal["openai", "jsonl", "csv", "parquet"]


class RawRow(NamedTuple):
    """One row as it stands in the input: the object, or the problem that hides it."""

    line: int
    """1-based line; for Parquet the row, for CSV the line on which the record ends."""
    value: dict[str, Any] | None = None
    problem: RowProblem | None = None


class TextRow(NamedTuple):
    """A line of JSON that nobody has looked at."""

    line: int
    text: bytes


def detect_format(spec: InputSpec, path: Path) -> Format:
    """The format asked for, or for ``auto`` the one that extension and first good line tell.

    Raises UNSUPPORTED_INPUT when neither tells.
    """
    if spec.format != "auto":
        return spec.format
    suffix = Path(spec.uri).suffix.lower()
    if suffix == ".csv":
        return "csv"
    with path.open("rb") as file:
        head = file.read(4)
        if suffix in (".parquet", ".pq") or head == b"PAR1":
            return "parquet"
        file.seek(0)
        for _, text in _lines(file):
            if isinstance(text, RowProblem) or not text.strip():
                continue
            if not text.lstrip().startswith(b"{") and suffix not in (".jsonl", ".ndjson", ".json"):
                raise RankflowError(
                    ErrorType.UNSUPPORTED_INPUT,
                    f"the format of {spec.uri} is not known: name it with --input-format",
                )
            row = _parse_line(1, text).value
            # A broken line says nothing: the others are not to be taken for something else.
            if row is not None:
                return "openai" if {"body", "url", "method"} & row.keys() else "jsonl"
    return "openai"


def read_rows(kind: Format, spec: InputSpec, path: Path) -> Iterator[RawRow | TextRow]:
    """Rows in input order, at most ``spec.limit``; blank lines are skipped.

    Those of JSON are still to be parsed, with ``parse``, which may be done elsewhere.

    Raises INVALID_INPUT for what concerns the whole input: options that do not fit its format,
    unknown columns, a broken Parquet file.
    """
    _check_options(kind, spec)
    rows = {"openai": _read_json, "jsonl": _read_json, "csv": _read_csv, "parquet": _read_parquet}[
        kind
    ](path, spec)
    for number, row in enumerate(rows):
        if spec.limit is not None and number >= spec.limit:
            return
        yield row


def _check_options(kind: Format, spec: InputSpec) -> None:
    """Raise INVALID_INPUT for options that would be passed over without a word."""
    if spec.template is not None and spec.prompt_column is not None:
        raise whole_input(
            "conflicting_options", "--template and --prompt-column exclude each other"
        )
    if kind == "openai" and (spec.template is not None or spec.prompt_column is not None):
        raise whole_input(
            "conflicting_options",
            "requests in OpenAI's batch format have their prompts in them: leave out --template "
            "and --prompt-column, or name another --input-format",
        )


def placeholders(template: str) -> list[str]:
    """Names of the {column} placeholders. Raises INVALID_INPUT for a malformed template."""
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise whole_input(
            "invalid_template", f"the template is not well formed: {error}"
        ) from error
    names = [name for _, name, _, _ in parts if name is not None]
    if not all(names):
        raise whole_input("invalid_template", "the template has a placeholder without a name: {}")
    return names


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes | RowProblem]]:
    """Lines without their ends, numbered from 1; a byte order mark at the start is dropped."""
    number = 0
    while text := file.readline(LINE_BYTES + 1):
        number += 1
        if number == 1:
            text = text.removeprefix(_BOM)
        if len(text) > LINE_BYTES and not text.endswith(b"\n"):
            while rest := file.readline(LINE_BYTES):
                if rest.endswith(b"\n"):
                    break
            yield (
                number,
                RowProblem(
                    "line_too_long", f"the line is longer than {LINE_BYTES // 1024 // 1024} MiB"
                ),
            )
        else:
            yield number, text.rstrip(b"\r\n")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _refuse_infinity(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError("a number is too large")
    return value


def _load(text: bytes) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        # Slower, and tells what is wrong, and where.
        return json.loads(
            text.decode(), parse_constant=_refuse_constant, parse_float=_refuse_infinity
        )


def _parse_line(number: int, text: bytes) -> RawRow:
    try:
        value = _load(text)
    except UnicodeDecodeError as error:
        return RawRow(
            number, problem=RowProblem("invalid_utf8", f"byte {error.start + 1} is not UTF-8")
        )
    except json.JSONDecodeError as error:
        return RawRow(
            number, problem=RowProblem("invalid_json", f"{error.msg} at character {error.colno}")
        )
    except (ValueError, RecursionError) as error:
        # NaN and Infinity, numbers of thousands of digits, nesting of thousands of levels.
        reason = str(error) if "not JSON" in str(error) else "a number or its nesting is too large"
        return RawRow(number, problem=RowProblem("invalid_json", reason))
    if not isinstance(value, dict):
        return RawRow(number, problem=RowProblem("not_an_object", "the line is not a JSON object"))
    return RawRow(number, cast("dict[str, Any]", value))


def parse(row: RawRow | TextRow) -> RawRow:
    """What a line of JSON says, or what is wrong with it; other rows are as they are."""
    return row if isinstance(row, RawRow) else _parse_line(row.line, row.text)


def size_of(row: RawRow | TextRow) -> int:
    """About how many bytes a row holds."""
    if isinstance(row, TextRow):
        return len(row.text)
    return sum(len(text) for text in (row.value or {}).values() if isinstance(text, str))


def _read_json(path: Path, spec: InputSpec) -> Iterator[RawRow | TextRow]:
    with path.open("rb") as file:
        for number, text in _lines(file):
            if isinstance(text, RowProblem):
                yield RawRow(number, problem=text)
            elif text.strip():
                yield TextRow(number, text)


def _check_columns(spec: InputSpec, columns: list[str]) -> None:
    """Raise one INVALID_INPUT for a prompt column or placeholder that the table does not have."""
    wanted = (
        placeholders(spec.template)
        if spec.template is not None
        else [spec.prompt_column or "prompt"]
    )
    unknown = sorted(set(wanted) - set(columns))
    if unknown:
        raise whole_input(
            "unknown_column",
            f"no column {', '.join(map(repr, unknown))}; the input has {', '.join(columns)[:300]}",
        )
    if len(set(columns)) != len(columns):
        raise whole_input("duplicate_column", "two columns of the input have the same name")


def _read_csv(path: Path, spec: InputSpec) -> Iterator[RawRow]:
    csv.field_size_limit(LINE_BYTES)
    # The standard reader: unlike pyarrow's it tells on which line a record is.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            columns = next(reader, [])
        except csv.Error as error:
            raise whole_input("invalid_csv", f"the header is not CSV: {error}") from error
        _check_columns(spec, columns)
        while True:
            try:
                fields = next(reader, None)
            except csv.Error as error:
                yield RawRow(reader.line_num, problem=RowProblem("invalid_csv", str(error)))
                continue
            if fields is None:
                return
            if not fields:
                continue
            if len(fields) != len(columns):
                problem = RowProblem(
                    "invalid_csv", f"{len(fields)} fields where the header has {len(columns)}"
                )
                yield RawRow(reader.line_num, problem=problem)
            elif any("\udc80" <= letter <= "\udcff" for field in fields for letter in field):
                problem = RowProblem("invalid_utf8", "the record is not UTF-8")
                yield RawRow(reader.line_num, problem=problem)
            else:
                yield RawRow(reader.line_num, dict(zip(columns, fields, strict=True)))


def _read_parquet(path: Path, spec: InputSpec) -> Iterator[RawRow]:
    # Not at the top: most inputs are JSON and pyarrow takes a second to import.
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            columns = list(file.schema_arrow.names)
            _check_columns(spec, columns)
            wanted = set(placeholders(spec.template)) if spec.template is not None else set[str]()
            wanted |= {spec.prompt_column or "prompt", "custom_id", "id"}
            number = 0
            for batch in file.iter_batches(1024, columns=[c for c in columns if c in wanted]):
                for value in cast("list[dict[str, Any]]", batch.to_pylist()):
                    number += 1
                    yield RawRow(number, value)
    except (pyarrow.ArrowException, OSError) as error:
        raise whole_input("invalid_parquet", f"the input is not Parquet: {error}") from error
