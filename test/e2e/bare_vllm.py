"""The answers of bare vLLM, to hold Rankflow's against: greedy, float32, no Ray, no Temporal.

``python bare_vllm.py REQUESTS MODEL MAX_MODEL_LEN > ANSWERS`` reads OpenAI Batch JSONL (chat rows) and prints
one JSON line a row: ``{"custom_id", "text", "finish_reason"}``. vLLM's own logs go to stderr.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

KEPT = ("temperature", "top_p", "max_tokens", "seed", "stop")


def main(requests: Path, model: str, max_model_len: int) -> None:
    """Answer all requests in one engine and print the answers."""
    # Libraries, those in C too, print to the real stdout: it becomes stderr, and answers keep a copy.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    os.environ.setdefault("USE_TF", "0")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    # One process is one import of vLLM instead of three.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    from vllm import LLM, SamplingParams

    rows: list[dict[str, Any]] = [json.loads(line) for line in requests.read_text().splitlines()]
    bodies = [row["body"] for row in rows]
    llm = LLM(model=model, dtype="float32", max_model_len=max_model_len, enforce_eager=True)
    params = [SamplingParams(**{k: body[k] for k in KEPT if k in body}) for body in bodies]
    outputs = llm.chat([body["messages"] for body in bodies], params, use_tqdm=False)
    for row, output in zip(rows, outputs, strict=True):
        answer = output.outputs[0]
        line = {
            "custom_id": row["custom_id"],
            "text": answer.text,
            "finish_reason": answer.finish_reason,
        }
        answers.write(json.dumps(line) + "\n")
    answers.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
