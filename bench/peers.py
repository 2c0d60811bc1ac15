"""The peers of the side-by-side comparison, each on the same request file.

``python bench/peers.py bare|run-batch FILE --model DIR --engines N`` splits FILE (OpenAI Batch JSONL, chat
rows) into N contiguous parts, answers each in a process of its own with its share of the cores, and prints one
JSON line: rows, completion tokens, seconds in all, and seconds of generation (of run_batch: from the time that
its first answer carries, in whole seconds, to the output file). Settings that decide speed (dtype, context, eager mode, KV cache) are those of Rankflow's engines.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

MAX_MODEL_LEN = 2048


def engine_environment(part: int, engines: int) -> dict[str, str]:
    """Environment of one engine process: its share of the cores and one GiB of KV cache."""
    cores = os.cpu_count() or 1
    share = max(1, cores // engines)
    first = (part * share) % cores
    return {
        **os.environ,
        "USE_TF": "0",
        "HF_HUB_OFFLINE": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": f"{first}-{first + share - 1}"
        if share > 1
        else str(first),
    }


def split(file: Path, engines: int, folder: Path) -> list[Path]:
    """Write N contiguous parts of the request file."""
    lines = file.read_text(encoding="utf-8").splitlines()
    size = -(-len(lines) // engines)
    parts: list[Path] = []
    for index in range(engines):
        part = folder / f"part-{index}.jsonl"
        part.write_text(
            "".join(f"{line}\n" for line in lines[index * size : (index + 1) * size])
        )
        parts.append(part)
    return parts


def bare_part(file: Path, model: str, result: Path) -> None:
    """One bare engine: all prompts at once through ``LLM.chat``; writes rows, tokens and seconds."""
    from vllm import LLM, SamplingParams

    bodies = [json.loads(line)["body"] for line in file.read_text().splitlines()]
    llm = LLM(
        model=model, max_model_len=MAX_MODEL_LEN, enforce_eager=True, dtype="bfloat16"
    )
    params = [
        SamplingParams(
            temperature=body.get("temperature", 1.0), max_tokens=body["max_tokens"]
        )
        for body in bodies
    ]
    started = time.monotonic()
    outputs = llm.chat([body["messages"] for body in bodies], params, use_tqdm=False)
    seconds = time.monotonic() - started
    tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
    result.write_text(
        json.dumps({"rows": len(outputs), "tokens": tokens, "generating": seconds})
    )


def measure(peer: str, file: Path, model: str, engines: int) -> dict[str, Any]:
    """Run one peer to the end and count what it answered."""
    with tempfile.TemporaryDirectory(prefix="rankflow-bench-") as temporary:
        folder = Path(temporary)
        started = time.monotonic()
        processes: list[tuple[subprocess.Popen[bytes], Path]] = []
        for index, part in enumerate(split(file, engines, folder)):
            output = folder / f"answers-{index}.jsonl"
            command = (
                [
                    *(sys.executable, __file__, "bare-part", str(part)),
                    *("--model", model, "--result", str(output)),
                ]
                if peer == "bare"
                else [
                    *(sys.executable, "-m", "vllm.entrypoints.openai.run_batch"),
                    *("-i", str(part), "-o", str(output), "--model", model),
                    *("--max-model-len", str(MAX_MODEL_LEN), "--enforce-eager"),
                    *("--dtype", "bfloat16"),
                    *("--served-model-name", Path(model).name),
                ]
            )
            process = subprocess.Popen(
                command,
                env=engine_environment(index, engines),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            processes.append((process, output))
        results: list[dict[str, Any]] = []
        for process, output in processes:
            if process.wait() != 0:
                raise SystemExit(f"{peer} ended with exit code {process.returncode}")
            if peer == "bare":
                results.append(json.loads(output.read_text()))
            else:
                bodies = [
                    json.loads(line)["response"]["body"]
                    for line in output.read_text().splitlines()
                ]
                tokens = sum(body["usage"]["completion_tokens"] for body in bodies)
                generating = output.stat().st_mtime - min(
                    body["created"] for body in bodies
                )
                results.append(
                    {"rows": len(bodies), "tokens": tokens, "generating": generating}
                )
        return {
            "rows": sum(result["rows"] for result in results),
            "tokens": sum(result["tokens"] for result in results),
            "seconds": time.monotonic() - started,
            "generating": max(result["generating"] for result in results),
        }


def main() -> None:
    """Command line of this script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", choices=["bare", "run-batch", "bare-part"])
    parser.add_argument("file", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--engines", type=int, default=1)
    parser.add_argument("--result", type=Path, default=Path("result.json"))
    arguments = parser.parse_args()
    if arguments.peer == "bare-part":
        bare_part(arguments.file, arguments.model, arguments.result)
        return
    print(
        json.dumps(
            measure(arguments.peer, arguments.file, arguments.model, arguments.engines)
        )
    )


if __name__ == "__main__":
    main()
