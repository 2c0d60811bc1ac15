"""A task that tells which process it runs in."""

from __future__ import annotations

import json
import os
import sys

from tests.control.spared import Who

if __name__ == "__main__":
    given = json.loads(sys.stdin.read())
    who = Who(
        pid=os.getpid(),
        ahead="STARTED_AHEAD" in os.environ,
        argument=sys.argv[1],
        model=given["model"]["model"],
    )
    print(who.model_dump_json())
