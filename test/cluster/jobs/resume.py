"""Counts to STEPS and goes on from its checkpoint; a line in `starts` for each start of it."""

import json
import os
import signal
import sys
import time
from pathlib import Path

folder = Path(os.environ["RANKFLOW_CHECKPOINT_DIR"])
steps = int(os.environ.get("STEPS", "3"))


def on_term(_signal: int, _frame: object) -> None:
    print("told to end", flush=True)
    if os.environ.get("STUBBORN") is None:
        sys.exit(0)


signal.signal(signal.SIGTERM, on_term)
with (folder / "starts").open("a") as starts:
    starts.write(f"{os.environ['RANKFLOW_ATTEMPT']}\n")
checkpoint = folder / "step"
first = int(checkpoint.read_text()) if checkpoint.exists() else 0
print(f"from step {first}", flush=True)
for step in range(first, steps):
    time.sleep(0.25)
    new = folder / "step.new"
    new.write_text(str(step + 1))
    new.replace(checkpoint)
print("é" * 10, flush=True)
result = {"metrics": {"steps": steps, "first": first}, "checkpoint": str(checkpoint)}
Path(os.environ["RANKFLOW_RESULT_FILE"]).write_text(json.dumps(result))
