"""What the examples share: where a job keeps its checkpoints, and how it tells its result."""

import json
import os
import tempfile
from pathlib import Path


def checkpoint_folder() -> str:
    """The folder that all attempts of the job share; a temporary one without Rankflow."""
    return os.environ.get("RANKFLOW_CHECKPOINT_DIR") or tempfile.mkdtemp(prefix="jobs-example-")


def tell(metrics: dict[str, float | int | str], checkpoint: str | None) -> None:
    """Leaves numbers and the path of the best checkpoint for the job's result."""
    result: dict[str, object] = {"metrics": metrics}
    if checkpoint is not None:
        result["checkpoint"] = checkpoint
    print(f"result {json.dumps(result)}", flush=True)
    file = os.environ.get("RANKFLOW_RESULT_FILE")
    if file is not None:
        Path(file).write_text(json.dumps(result))
