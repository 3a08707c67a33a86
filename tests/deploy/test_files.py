"""Dockerfile, compose file, launcher file and scripts, each by the tool that knows its kind."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import ray
import yaml
from compose_spec import PyCompose

ROOT = Path(__file__).resolve().parents[2]


def tool(name):
    """A command that a package of the test extra brings."""
    found = shutil.which(name, path=str(Path(sys.executable).parent))
    assert found, f"{name} is not installed beside {sys.executable}"
    return found


def run(*words):
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)


def test_the_dockerfile_passes_hadolint(deploy):
    checked = run(tool("hadolint"), "--no-color", deploy / "Dockerfile")
    assert checked.returncode == 0, checked.stdout


def test_hadolint_sees_mistakes(tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM debian\nRUN apt-get install foo\n")
    assert run(tool("hadolint"), tmp_path / "Dockerfile").returncode == 1


def test_the_image_is_of_nobody_special_and_holds_what_it_copies(deploy):
    text = (deploy / "Dockerfile").read_text()
    final = text[text.index("AS final") :]
    assert re.search(r"^USER 1000:1000$", final, flags=re.MULTILINE)
    assert "AS index-cpu" in text and "AS index-cuda" in text
    ignored = (deploy / "Dockerfile.dockerignore").read_text().splitlines()
    for line in re.findall(r"^COPY (?!--)(.*)$", text, flags=re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert f"!{source}" in ignored, source


def test_the_compose_file_is_what_compose_takes(deploy):
    compose = PyCompose.from_yaml(_interpolated(deploy))
    compose.validate()
    assert set(compose.service_names()) == {"postgres", "storage", "bucket", "mlflow", "proxy"}


def test_the_compose_schema_sees_mistakes(deploy):
    text = _interpolated(deploy)
    for broken in (
        text.replace("healthcheck:", "helthcheck:", 1),
        text.replace("networks: [store]", "networks: [stor]", 1),
    ):
        with pytest.raises(Exception, match=r"helthcheck|stor"):
            PyCompose.from_yaml(broken).validate()


def test_the_servers_listen_on_loopback_and_only_the_proxy_is_published(deploy):
    services = yaml.safe_load((deploy / "mlflow/compose.yaml").read_text())["services"]
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published == {"proxy": ["${BIND:-127.0.0.1}:5000:8080"]}
    example = dict(
        line.split("=", 1)
        for line in (deploy / "mlflow/example.env").read_text().splitlines()
        if "=" in line and line[0] != "#"
    )
    wanted = set(re.findall(r"\$\{([A-Z0-9_]+)", (deploy / "mlflow/compose.yaml").read_text())) - {"ONEIROS_IMAGE"}
    assert set(example) == wanted and example["BIND"] == "127.0.0.1"


def _interpolated(deploy):
    """The file as compose reads it with the example's settings."""
    text = (deploy / "mlflow/compose.yaml").read_text()
    text = re.sub(r"\$\{[A-Z0-9_]+:-([^}]*)\}", r"\1", text)
    return re.sub(r"\$\{[A-Z0-9_]+(?::\?[^}]*)?\}", "value", text)


def test_the_launcher_file_is_what_ray_takes(deploy):
    schema = json.loads((Path(ray.__file__).parent / "autoscaler/ray-schema.json").read_text())
    config = yaml.safe_load((deploy / "ray/cluster.yaml").read_text())
    jsonschema.validate(config, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(config | {"max_worker": 3}, schema)


def test_the_launcher_file_can_be_prepared_by_ray(deploy):
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((deploy / "ray/cluster.yaml").read_text())
    prepared = prepare_config(config)
    validate_config(prepared)
    assert prepared["max_workers"] == len(config["provider"]["worker_ips"])


SCRIPTS = ["ray/start-head.sh", "ray/start-worker.sh", "slurm/train.sbatch"]


@pytest.mark.parametrize("name", [*SCRIPTS, "../.ci/run"])
def test_scripts_pass_shellcheck(deploy, name):
    checked = run(tool("shellcheck"), deploy / name)
    assert checked.returncode == 0, checked.stdout


def test_every_script_is_checked(deploy):
    assert (
        sorted(str(path.relative_to(deploy)) for path in deploy.rglob("*.s*") if path.suffix in (".sh", ".sbatch"))
        == SCRIPTS
    )
