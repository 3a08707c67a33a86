"""Makes the fakes importable, here and in the Ray workers that inherit this process's module path; runs commands."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "fakes"))


@pytest.fixture
def oneiros(capsys):
    """Runs a command in this process: exit code, standard output, standard error."""
    from oneiros.platform.cli import main

    def run(*words):
        code = main.run([str(word) for word in words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
