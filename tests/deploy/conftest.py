"""Where the files to deploy lie."""

from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def deploy():
    return ROOT / "deploy"


@pytest.fixture(scope="session")
def manifests(deploy):
    """Every Kubernetes object under deploy/, by its file's name and its place in it."""
    return {
        f"{path.name}[{index}]": document
        for path in sorted((deploy / "kubernetes").glob("*.yaml"))
        for index, document in enumerate(yaml.safe_load_all(path.read_text()))
    }
