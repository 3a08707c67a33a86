"""Makes the fake environments importable, here and in the processes that inherit this process's module path."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "envs" / "fakes"))
