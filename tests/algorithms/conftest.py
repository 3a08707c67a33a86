"""Makes ``fakes/`` importable: a stand-in for a GPU, which the tests of every agent use."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "fakes"))
