import json
import os
import subprocess
import sys

import pytest
import torch
from oneiros.platform.cli import examination
from oneiros.platform.cli.examination import examine


def test_suites_are_listed_with_what_they_lack(oneiros, tmp_path, monkeypatch):
    from oneiros.envs.contract import SuiteStatus

    lacking = SuiteStatus("stars", "far away", missing=("starlib",), install="pip install starlib", source="galaxy")
    broken = SuiteStatus("mud", "", error="ImportError: no clay", source="swamp")
    working = SuiteStatus("memory", "to be remembered", tasks=("cue-5", "cue-9"), source="oneiros")
    monkeypatch.setattr("oneiros.envs.registry.suites", lambda: [working, lacking, broken])
    code, out, _ = oneiros("envs", "--tasks", "--json", "out.json")
    assert code == 0 and "starlib: pip install starlib" in out and "ImportError: no clay" in out
    assert "memory/cue-9" in out
    states = {row["name"]: row["available"] for row in json.loads((tmp_path / "out.json").read_text())}
    assert states == {"memory": True, "stars": False, "mud": False}


def test_installed_suites_and_algorithms_are_found(oneiros, tmp_path):
    code, out, _ = oneiros("envs")
    assert code == 0 and "gym" in out and "dmc" in out
    code, out, _ = oneiros("algorithms", "--json", "out.json")
    (entry,) = [row for row in json.loads((tmp_path / "out.json").read_text()) if row["name"] == "dreamerv3"]
    assert code == 0 and "two_cores" in out and {"two_cores", "one_gpu"} <= set(entry["presets"]) and not entry["error"]


def test_the_doctor_finds_everything_here(oneiros, tmp_path):
    code, out, _ = oneiros("doctor", "--json", "out.json")
    items = {item["name"]: item for item in json.loads((tmp_path / "out.json").read_text())}
    assert code == 0 and "Everything that training needs is here." in out
    assert items["torch"]["state"] == items["algorithm dreamerv3"]["state"] == items["suite gym"]["state"] == "works"
    assert {"python", "ray", "mlflow", "processor", "AMX bfloat16", "C++ compiler", "disk"} <= set(items)


def found(name):
    (item,) = [item for item in examine() if item.name == name]
    return item


@pytest.mark.parametrize(
    ("package", "state", "mend"),
    [("torch", "missing", "pip install torch"), ("mlflow", "absent", "pip install mlflow")],
)
def test_a_package_that_is_not_installed_comes_with_its_command(oneiros, monkeypatch, package, state, mend):
    def version(name):
        if name == package:
            raise examination.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(examination, "version", version)
    item = found(package)
    assert (item.state, item.mend) == (state, mend)
    code, out, _ = oneiros("doctor")
    assert code == (1 if state == "missing" else 0) and mend in out


def test_a_machine_without_compiler_and_matrix_units_is_told_so(monkeypatch):
    monkeypatch.setattr(examination.shutil, "which", lambda name: None)
    monkeypatch.setattr("oneiros.algorithms.nn.precision.cpu_flags", lambda: frozenset({"avx512f"}))
    assert found("C++ compiler").mend == "apt-get install g++"
    assert found("AMX bfloat16").state == "absent" and found("AVX-512").state == "works"
    assert found("GPU").detail.startswith("no NVIDIA driver")


@pytest.mark.parametrize(
    ("flags", "chosen", "reason"),
    [
        ({"avx512f"}, "float32", "the processor has no units for bfloat16 products"),
        ({"avx512f", "avx512_bf16"}, "bfloat16", "the processor has AVX-512 bfloat16"),
        ({"amx_bf16", "avx512_bf16"}, "bfloat16", "the processor has AMX bfloat16 and AVX-512 bfloat16"),
    ],
)
def test_the_precision_is_the_one_that_agents_choose_and_has_a_reason(monkeypatch, flags, chosen, reason):
    from oneiros.algorithms.nn import precision

    monkeypatch.setattr(precision, "cpu_flags", lambda: frozenset(flags))
    assert str(precision.choose_precision("auto", torch.device("cpu"))) == f"torch.{chosen}"
    assert found("precision on the CPU").detail == f"{chosen}, where precision is auto: {reason}"
    assert not any("float32 is used" in item.detail for item in examine())


def test_a_server_that_does_not_answer_is_told_of(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    item = found("MLflow server")
    assert item.state == "absent" and "http://127.0.0.1:9 does not answer" in item.detail


def test_an_examination_that_fails_is_an_item(monkeypatch):
    def fail():
        raise RuntimeError("no disk at all")

    monkeypatch.setattr(examination, "_disk", fail)
    assert any(item.state == "missing" and "no disk at all" in item.detail for item in examine())


def test_no_runs_and_damaged_runs_are_told_of(oneiros, tmp_path):
    assert oneiros("runs")[:2] == (0, "No runs under runs.\n")
    (tmp_path / "runs" / "a").mkdir(parents=True)
    assert oneiros("runs")[:2] == (0, "No runs under runs.\n")
    (tmp_path / "runs" / "a" / "config.yaml").write_text("env: CartPole-v1\nwhat: 3\n")
    (tmp_path / "runs" / "a" / "provenance.json").write_text("{}")
    code, out, _ = oneiros("runs")
    assert code == 0 and "runs/a/config.yaml: what is not a setting." in out


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("oneiros tr", "train"),
        ("oneiros train dmc/walker_w", "dmc/walker_walk"),
        ("oneiros train X --agent dr", "dreamerv3"),
        ("oneiros train X --preset two", "two_cores"),
        ("oneiros train X --set replay.ca", "replay.capacity="),
        ("oneiros train X --set hyper.learning", "hyper.learning_rate="),
        ("oneiros train X --engine l", "local"),
    ],
)
def test_the_shell_completes_names(typed, completed):
    words = typed.split()
    environment = {
        **os.environ, "_ONEIROS_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(len(words) - 1),
    }  # fmt: skip
    script = os.path.join(os.path.dirname(sys.executable), "oneiros")
    done = subprocess.run([script], env=environment, capture_output=True, text=True)
    assert completed in done.stdout.split(), done


@pytest.mark.parametrize(("capability", "chosen"), [((9, 0), "bfloat16"), ((7, 5), "float32")])
def test_a_gpu_is_told_of_and_what_compiling_for_it_lacks(monkeypatch, capability, chosen):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (150e9, 151e9))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "H200")
    monkeypatch.setattr("oneiros.algorithms.nn.precision.lacking_for_triton", lambda device: None)
    items = list(examination._gpu())
    assert [item.name for item in items] == ["cuda:0"] and "H200, 150 of 151 GB free" in items[0].detail
    assert items[0].detail.endswith(f"; {chosen}, where precision is auto")
    monkeypatch.setattr("oneiros.algorithms.nn.precision.lacking_for_triton", lambda device: "a C compiler")
    lacking = list(examination._gpu())[1]
    assert lacking.state == "absent" and lacking.detail == "updates are captured uncompiled: it takes a C compiler"
