"""A user's mistake: one sentence, exit code 2, nothing started."""

import os
import resource
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["trian"], "No such command 'trian'. Did you mean 'train'?"),
        (["train"], "ENV must be given"),
        (["train", "CartPole-v1", "--sizee", "1m"], "No such option: --sizee"),
        (["train", "CartPole-v1", "--env-steps", "many"], "Invalid value for '--env-steps'"),
        (["train", "CartPole-v1", "--size", "13m"], "hyper.size must be '1m', '12m', '25m'"),
        (["train", "CartPole-v1", "--env-steps", "0"], "env_steps must be at least 1, not 0 (set by --env-steps)."),
        (["train", "CartPole-v1", "--num-runners", "-1"], "num_runners must be at least 0, not -1 (set by"),
        (["train", "CartPole-v1", "--set", "train_rato=3"], "(in --set) is unknown: did you mean train_ratio?"),
        (["train", "CartPole-v1", "--agent", "dreamer"], "algorithm 'dreamer' is unknown: did you mean dreamerv3?"),
        (["train", "CartPole-v1", "--preset", "two_core"], "preset 'two_core' is unknown: did you mean two_cores?"),
        (["train", "CartPole-v1", "--device", "cuda"], "device is cuda, but PyTorch finds no CUDA device here"),
        (["train", "CartPole-v1", "--device", "tpu"], "device must"),
        (["train", "CartPole-v0.1"], "unknown environment 'CartPole-v0.1': did you mean 'CartPole-v1'?"),
        (["train", "CartPole-v1", "--set", "deter=12"], "but it is 12 (hyper.deter set by --set)."),
        (["train", "CartPole-v1", "--engine", "local", "--num-runners", "1"], "(engine set by --engine, num_runn"),
        (
            ["train", "CartPole-v1", "--set", "replay.capacity=1024", "--set", "hyper.batch_length=2048"],
            "less than one sequence of 2049 rows",
        ),
        (
            ["train", "CartPole-v1", "--set", "replay.latent_stride=8", "--set", "hyper.replay_context=0"],
            "for which hyper.replay_context must be 1, not 0",
        ),
        (["train", "CartPole-v1", "--set", "env_options.foo=3"], "CartPole-v1 takes no option 'foo'"),
        (["train", "CartPole-v1", "--set", "evaluation.env_options.foo=3"], "CartPole-v1 takes no option 'foo'"),
        (["train", "CartPole-v1", "--set", "evaluation.env_options=3"], "env_options must be a mapping, not 3"),
        (
            ["train", "pixel/catch", "--set", "env_options.size=16", "--set", "evaluation.env_options.size=32"],
            "(32, 32, 3)",
        ),
        (["train", "nothing.yaml"], "configuration file nothing.yaml does not exist."),
        (["train", "CartPole-v1", "--json", "/proc/none/out.json"], "--json /proc/none/out.json cannot be written"),
        (["config", "CartPole-v1", "--set", "seed"], "--set takes key=value, such as train_ratio=64, not 'seed'."),
        (["evaluate", "nowhere"], "nowhere is no run directory: there is no such folder"),
        (["evaluate", ".", "--episodes", "0"], "Invalid value for '--episodes'"),
        (["resume", "."], "is no run directory: it has no config.yaml"),
        (["runs", "nowhere"], "nowhere is no folder"),
        (["envs", "check", "dmc/walker_wlk"], "unknown environment 'dmc/walker_wlk': did you mean 'dmc/walker_walk'?"),
    ],
)  # fmt: skip
def test_it_gets_one_sentence_and_exit_code_2(oneiros, tmp_path, words, sentence):
    code, out, err = oneiros(*words)
    assert code == 2 and out == ""
    assert err.startswith("oneiros: ") and sentence in err and err.count("\n") == 1
    assert "Traceback" not in err and not list(tmp_path.iterdir())


def test_spaces_that_the_agent_cannot_serve_are_named_before_anything_starts(oneiros, tmp_path, monkeypatch):
    import gymnasium
    from gymnasium import spaces

    class Talker(gymnasium.Env):
        observation_space = spaces.Text(10)
        action_space = spaces.Discrete(2)

    monkeypatch.setitem(gymnasium.registry, "Talker-v0", gymnasium.envs.registration.EnvSpec("Talker-v0", Talker))
    code, _, err = oneiros("train", "Talker-v0")
    assert code == 2 and "Text" in err and "supported are Box, Discrete" in err
    assert not list(tmp_path.iterdir())


def test_a_missing_ray_is_named_with_what_mends_it(oneiros, monkeypatch):
    monkeypatch.setattr("oneiros.platform.cli.preflight.find_spec", lambda name: None)
    code, _, err = oneiros("train", "CartPole-v1", "--engine", "rllib")
    assert code == 2 and "pip install 'ray[default,tune,rllib]', or choose --engine local." in err


def test_an_error_that_is_no_mistake_of_the_user_keeps_its_traceback(oneiros, monkeypatch):
    def broken(*_):
        raise ValueError("a fault of ours")

    monkeypatch.setattr("oneiros.platform.cli.preflight.check", broken)
    with pytest.raises(ValueError, match="a fault of ours"):
        oneiros("train", "CartPole-v1")


def test_what_ray_wraps_is_still_the_users_mistake():
    from oneiros.platform.cli.main import own_error
    from oneiros.platform.config import ConfigError
    from ray.exceptions import RayTaskError

    wrapped = RayTaskError("f", "traceback", ConfigError("seed must be a number.")).as_instanceof_cause()
    assert str(own_error(wrapped, ValueError)) == "seed must be a number."
    assert own_error(ValueError("ours"), ValueError) is None and own_error(wrapped, RuntimeError) is None


def test_a_fault_that_has_a_sentence_needs_no_traceback(oneiros, monkeypatch):
    from oneiros.platform.training.core import TrainingDiverged

    def diverge(*_):
        raise TrainingDiverged("50 updates in a row had gradients that are not finite")

    monkeypatch.setattr("oneiros.platform.cli.preflight.check", diverge)
    code, _, err = oneiros("train", "CartPole-v1")
    assert code == 1 and err == "oneiros: 50 updates in a row had gradients that are not finite\n"


def test_the_installed_command_ends_with_the_exit_code_and_helps_quickly():
    script = os.path.join(os.path.dirname(sys.executable), "oneiros")
    done = subprocess.run([script, "train", "CartPole-v1", "--set", "sed=1"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "oneiros: setting 'sed' (in --set) is unknown: did you mean seed?\n"

    def processor_seconds():
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before = processor_seconds()
    subprocess.run([script, "--help"], capture_output=True, check=True)
    assert processor_seconds() - before < 1.0


def test_help_imports_nothing_heavy():
    program = (
        "import sys; from oneiros.platform.cli.main import run; run(['--help']);"
        "heavy = {'torch', 'ray', 'mlflow', 'gymnasium', 'numpy', 'pydantic'} & set(sys.modules); assert not heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
