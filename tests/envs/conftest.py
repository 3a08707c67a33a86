"""Makes the fakes importable, here and in the environment processes that inherit this process's module path."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "fakes"))
