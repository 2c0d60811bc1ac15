"""``python -m rankflow.rows``: planning, checking, assembling and reading rows, in its own process.

``plan``, ``validate``, ``progress`` and ``finalize`` read their input as JSON on stdin. The answer
is JSON on stdout, exit 0; an error is JSON on stdout too, exit 2. Libraries print to stderr.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from pydantic import ValidationError

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.contracts.models import FinalizeRunInput, PlanRunInput, RankProgressInput, RunSpec
from rankflow.rows.finalize import finalize_run
from rankflow.rows.gc import collect_garbage
from rankflow.rows.gc_plan import Wanted
from rankflow.rows.planner import estimate_bytes, plan_run, validate_run
from rankflow.rows.problems import ProblemLog
from rankflow.rows.progress import rank_progress
from rankflow.rows.results import list_runs, show_run, stored_run, write_results
from rankflow.rows.retry import write_retry_input
from rankflow.rows.scheduled import Prune, Publish, prune, publish, size_of
from rankflow.rows.source import open_input
from rankflow.rows.verify import verify_run
from rankflow.store import open_store

EXIT_ERROR = 2


def main(arguments: list[str], answers: TextIO) -> int:
    """Run one command, write its answer to ``answers``; returns the exit code."""
    # Before vLLM or transformers are imported: no TensorFlow, parallel tokenizers, logs to stderr.
    os.environ.setdefault("USE_TF", "0")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
    options = _parser().parse_args(arguments)
    try:
        answer = _run(options, answers.buffer)
    except RankflowError as error:
        answer = {"error": error.kind.value, "message": str(error), **(error.details or {})}
        print(json.dumps(answer), file=answers)
        return EXIT_ERROR
    except ValidationError as error:
        message = "; ".join(
            f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}"
            for detail in error.errors(include_input=False, include_url=False)
        )
        print(
            json.dumps({"error": ErrorType.INVALID_INPUT.value, "message": message}), file=answers
        )
        return EXIT_ERROR
    if answer is not None:
        print(json.dumps(answer), file=answers)
    return 0


def _run(options: argparse.Namespace, stdout: BinaryIO) -> Any:
    match options.command:
        case "plan":
            spec = PlanRunInput.model_validate_json(sys.stdin.buffer.read()).spec
            return {"summary": plan_run(spec).model_dump(by_alias=True)}
        case "validate":
            log = ProblemLog()
            summary = validate_run(RunSpec.model_validate_json(sys.stdin.buffer.read()), log)
            return {
                "summary": summary.model_dump(by_alias=True),
                "estimatedOutputBytes": estimate_bytes(summary),
                **log.as_details(),
            }
        case "progress":
            asked = RankProgressInput.model_validate_json(sys.stdin.buffer.read())
            progress = rank_progress(open_store(asked.store), asked.run_id, asked.rank)
            return progress.model_dump(by_alias=True)
        case "finalize":
            wanted = FinalizeRunInput.model_validate_json(sys.stdin.buffer.read())
            result = finalize_run(open_store(wanted.store), wanted.run_id, wanted.missing)
            return result.model_dump(by_alias=True)
        case "results":
            return write_results(
                open_store(options.store),
                options.run_id,
                stdout,
                rank=options.rank,
                errors=options.errors,
                kind=options.format,
                out=options.out,
                combined=options.combined,
            )
        case "show":
            return show_run(open_store(options.store), options.run_id)
        case "stored":
            return stored_run(open_store(options.store), options.run_id)
        case "digest":
            with open_input(options.input) as source:
                return {"sha256": source.sha256, "bytes": source.size}
        case "size":
            return {"size": size_of(options.input)}
        case "publish":
            return publish(Publish.model_validate_json(sys.stdin.buffer.read()))
        case "prune":
            return prune(Prune.model_validate_json(sys.stdin.buffer.read()))
        case "gc":
            return collect_garbage(Wanted.model_validate_json(sys.stdin.buffer.read()))
        case "retry-input":
            return write_retry_input(open_store(options.store), options.run_id, options.retry_id)
        case "verify":
            return verify_run(open_store(options.store), options.run_id).as_json()
        case _:
            return list_runs(open_store(options.store))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rankflow.rows", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("plan", help="PlanRunInput on stdin: check the input and write the plan")
    commands.add_parser("validate", help="RunSpec on stdin: the same checks, nothing is written")
    commands.add_parser("progress", help="RankProgressInput on stdin: what is committed")
    commands.add_parser("finalize", help="FinalizeRunInput on stdin: assemble the results")
    results = commands.add_parser("results", help="write the answers of a finished run")
    results.add_argument("--rank", type=int)
    results.add_argument("--errors", action="store_true", help="the error lines instead")
    results.add_argument("--format", choices=["jsonl", "parquet"], default="jsonl")
    results.add_argument("--out", type=Path)
    results.add_argument("--combined", action="store_true", help="with the runs that it retries")
    show = commands.add_parser("show", help="the manifest, or the plan in numbers")
    stored = commands.add_parser("stored", help="what the store has of a run")
    digest = commands.add_parser("digest", help="sha256 and size of an input")
    size = commands.add_parser("size", help="size of an input, or null when it is not there")
    for command in (digest, size):
        command.add_argument("--input", required=True)
    commands.add_parser("publish", help="Publish on stdin: copy the results of a scheduled run")
    commands.add_parser("prune", help="Prune on stdin: remove what is too old of a schedule")
    commands.add_parser("gc", help="Wanted on stdin: free a store of what nobody needs")
    retry = commands.add_parser("retry-input", help="write the failed rows of a run as an input")
    retry.add_argument("--retry-id", required=True)
    verify = commands.add_parser("verify", help="check a finished run again, file by file")
    for command in (results, show, stored, verify, retry):
        command.add_argument("--run-id", required=True)
    for command in (
        results,
        show,
        stored,
        verify,
        retry,
        commands.add_parser("list", help="all runs of a store"),
    ):
        command.add_argument("--store", required=True)
    return parser


def _own_stdout() -> TextIO:
    """Keep stdout for the answer: what libraries print, in C too, goes to stderr."""
    answers = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(answers, "w", encoding="utf-8")


if __name__ == "__main__":
    with _own_stdout() as stdout:
        code = main(sys.argv[1:], stdout)
    sys.exit(code)
