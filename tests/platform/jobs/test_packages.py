import pytest
from oneiros.platform.config import ConfigError
from oneiros.platform.jobs.packages import stage_own_package, stage_plugin
from oneiros.platform.jobs.submission import Submission


def test_a_project_is_built_without_what_an_earlier_build_left(plugin, tmp_path):
    found = {path.name for path in stage_plugin(plugin, tmp_path)}
    assert found == {"corridors.py", "linear_agent.py", "corridors-0.1.dist-info"}
    assert not (plugin / "corridors.egg-info").exists()


def test_this_package_is_shipped_with_its_entry_points(tmp_path):
    package, info = stage_own_package(tmp_path)
    assert package.name == "oneiros" and (package / "platform/cli/main.py").is_file()
    assert info.name.startswith("oneiros-") and info.suffix == ".dist-info"
    assert "dreamerv3 = oneiros.algorithms.dreamerv3" in (info / "entry_points.txt").read_text()


def test_bare_packages_and_modules_travel_as_they_are(tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    module = tmp_path / "module.py"
    module.touch()
    assert stage_plugin(package, tmp_path / "a") == [package] and stage_plugin(module, tmp_path / "b") == [module]


@pytest.mark.parametrize(("name", "sentence"), [("nowhere", "does not exist"), ("empty", "is no Python package")])
def test_what_is_no_package_is_refused(tmp_path, name, sentence):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=sentence):
        stage_plugin(tmp_path / name, tmp_path / "staged")


def test_a_project_that_does_not_build_says_so(tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/setup.py").write_text("raise SystemExit('no compiler')")
    with pytest.raises(ConfigError, match=r"broken cannot be built as a wheel: \S"):
        stage_plugin(tmp_path / "broken", tmp_path / "staged")
    (tmp_path / "broken/pyproject.toml").write_text("[project")
    with pytest.raises(ConfigError, match=r"pyproject.toml of broken is not TOML"):
        stage_plugin(tmp_path / "broken", tmp_path / "again")


def test_servers_are_passed_on_and_files_and_tokens_are_not(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "secret")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example.org")
    staged = Submission(("train", "CartPole-v1"), grace_s=90, environment={"A": "b"}).stage(tmp_path / "one")
    assert staged["env_vars"] == {
        "MLFLOW_TRACKING_URI": "https://mlflow.example.org",
        "RAY_JOB_STOP_WAIT_TIME_S": "90",
        "PYTHONUNBUFFERED": "1",
        "A": "b",
    }
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///here.db")
    assert "MLFLOW_TRACKING_URI" not in Submission(("train",)).stage(tmp_path / "two")["env_vars"]


def test_the_command_survives_the_shell():
    words = ("train", "tiny.yaml", "--set", "tracking.tags={note: it's 5 o'clock}")
    assert Submission(words).entrypoint.startswith("python -m oneiros.platform.cli train tiny.yaml --set 'tracking")


def test_files_of_one_name_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="two files are called a"):
        Submission(("train",), files=(tmp_path / "a.yaml", tmp_path / "b/a.yaml")).stage(tmp_path / "staged")
