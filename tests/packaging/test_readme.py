"""What the README tells a newcomer to type exists."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def code() -> str:
    """Everything set as code, inline and in fences."""
    fences = re.findall(r"```[a-z]*\n(.*?)```", README, flags=re.DOTALL)
    return "\n".join([*fences, *re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", README, flags=re.DOTALL))])


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"^(?:\s*|.*&& )make ([a-z]+)", code(), flags=re.MULTILINE))
    assert named
    assert named - targets == set()


def test_commands_exist() -> None:
    named = sorted(set(re.findall(r"(?:^|\s|/)oneiros ([a-z]+)", code(), flags=re.MULTILINE)))
    for command in named:
        script = Path(sys.executable).with_name("oneiros")
        ran = subprocess.run([script, command, "--help"], cwd=ROOT, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, f"oneiros {command}: {ran.stdout}{ran.stderr}"


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#\s]+)", README)
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []
