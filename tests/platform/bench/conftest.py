import json

import pytest
import torch
from oneiros.platform.cli import main


@pytest.fixture(autouse=True)
def threads():
    """Commands set how many threads PyTorch uses."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def widths():
    """A model of some 20,000 parameters."""
    return {"deter": 32, "hidden": 16, "groups": 4, "classes": 4, "units": 16, "depth": 2}


@pytest.fixture
def tiny(widths):
    """Such a model on the command line, uncompiled, as compiling alone takes a minute."""
    return ["--compile", "off", *(word for name, value in widths.items() for word in ("--set", f"{name}={value}"))]


@pytest.fixture
def bench(capsys, tmp_path):
    """Runs ``oneiros bench`` in this process: exit code, what the JSON holds, standard output, standard error."""
    file = tmp_path / "result.json"

    def run(*words):
        file.unlink(missing_ok=True)
        code = main.run(["bench", *map(str, words), "--json", str(file)])
        captured = capsys.readouterr()
        text = file.read_text() if file.is_file() else ""
        return code, json.loads(text) if text else None, captured.out, captured.err

    return run
