"""Says what is in its working directory and which variables it got."""

import os
from pathlib import Path

print(sorted(str(path) for path in Path().rglob("*") if path.is_file()))
print(os.environ["GREETING"])
