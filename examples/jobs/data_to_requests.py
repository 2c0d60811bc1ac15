r"""Makes a request file for Rankflow from a Hugging Face data set, with Ray Data.

rankflow job submit --name requests --working-dir examples/jobs -- \
    python data_to_requests.py --out FILE.jsonl
rankflow run FILE.jsonl --model MODEL
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

import datasets
import ray.data
from outcome import tell


def to_requests(batch: dict, max_tokens: int) -> dict:
    """One line of OpenAI Batch JSONL for each question."""
    lines = []
    for identity, question in zip(batch["id"], batch["question"], strict=True):
        body = {
            "messages": [{"role": "user", "content": question}],
            "max_tokens": max_tokens,
            "temperature": 0,
        }
        request = {
            "custom_id": identity,
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": body,
        }
        lines.append(json.dumps(request))
    return {"custom_id": batch["id"], "line": lines}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--data", default="data/pairs.jsonl", help="local data set, or a folder of one"
    )
    parser.add_argument("--out", required=True)
    parser.add_argument("--max-tokens", type=int, default=16)
    arguments = parser.parse_args()
    # Read into memory: what Datasets would keep of the file on this node is not needed again.
    with tempfile.TemporaryDirectory() as cache:
        local = datasets.load_dataset(
            "json",
            data_files=arguments.data,
            split="train",
            cache_dir=cache,
            keep_in_memory=True,
        )
    requests = (
        ray.data.from_huggingface(local)
        .map_batches(to_requests, fn_kwargs={"max_tokens": arguments.max_tokens}, batch_size=8)
        .sort("custom_id")
    )
    out = Path(arguments.out)
    new = out.with_name(f"{out.name}.{os.getpid()}.new")
    rows = 0
    with new.open("w") as file:
        for row in requests.iter_rows():
            file.write(f"{row['line']}\n")
            rows += 1
    # In one step: whoever finds the file finds all of it, also after an attempt that was lost.
    new.replace(out)
    tell({"rows": rows, "file": str(out)}, None)


if __name__ == "__main__":
    main()
