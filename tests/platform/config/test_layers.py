import json

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oneiros.envs.luanti import worlds
from oneiros.platform.config import ConfigError, Layer, RunConfig, find_algorithm, overrides_layer, resolve, yaml_layer

TOY = Layer("--agent", {"agent": "toy"})


def toy_run(*layers, env="Pendulum-v1"):
    return resolve([Layer("ENV", {"env": env}), TOY, *layers])


def test_each_layer_covers_the_one_below_and_is_remembered(toy, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("train_ratio: 100\nseed: 4\nreplay: {online: false}\nhyper: {horizon: 7}\n")
    run = toy_run(
        yaml_layer(file), overrides_layer(["train_ratio=64", "replay.capacity=1e5"]), Layer("--seed", {"seed": 9})
    )

    assert run.config.train_ratio == 64 and run.origins["train_ratio"] == "--set"
    assert run.config.seed == 9 and run.origins["seed"] == "--seed"
    assert run.config.replay.capacity == 100_000 and isinstance(run.config.replay.capacity, int)
    assert run.config.replay.online is False and run.origins["replay.online"] == str(file)
    assert run.config.hyper["horizon"] == 7 and run.origins["hyper.horizon"] == str(file)
    assert run.config.hyper["size"] == "1m" and run.origins["hyper.size"] == "preset two_cores"
    assert run.config.hyper["batch_length"] == 64 and "hyper.batch_length" not in run.origins


def test_every_setting_is_listed_once_with_its_origin(toy):
    run = toy_run(overrides_layer(["env_options.render=true", "tracking.tags.team.name=a"]))
    rows = list(run.values())
    listed = {key: (value, origin) for key, value, origin in rows}
    assert len(listed) == len(rows)
    assert listed["env"] == ("Pendulum-v1", "ENV")
    assert listed["env_options.render"] == (True, "--set")
    assert listed["tracking.tags.team.name"] == ("a", "--set")
    assert listed["hyper.heads.layers"] == (3, "default")
    assert set(run.origins) <= set(listed)


def test_a_hyperparameter_may_be_named_without_its_prefix(toy):
    run = toy_run(overrides_layer(["learning_rate=1e-4", "heads.layers=5"]))
    assert run.config.hyper["learning_rate"] == 1e-4 and run.origins["hyper.learning_rate"] == "--set"
    assert run.config.hyper["heads"] == {"layers": 5}


def test_only_true_and_false_are_booleans(toy, tmp_path):
    (tmp_path / "own.yaml").write_text("compile: off\nwords: [on, yes, No]\nswitched: True\n")
    assert yaml_layer(tmp_path / "own.yaml").values == {
        "compile": "off",
        "words": ["on", "yes", "No"],
        "switched": True,
    }
    run = toy_run(overrides_layer(["tracking.mlflow=off", "tracking.videos=false"]))
    assert run.config.tracking.mlflow is False and run.config.tracking.videos is False


@pytest.mark.parametrize(
    ("env", "name", "reason"),
    [
        ("CartPole-v1", "cartpole_v1", "CartPole-v1 matches CartPole-v1"),
        ("CartPole-v0", "cartpole", "CartPole-v0 matches CartPole-*"),
        ("Cartwheel", "cartpole_v1", "Cartwheel matches Cart*"),
        ("Pendulum-v1", "two_cores", "no preset names Pendulum-v1, and this machine has no GPU"),
    ],
)
def test_the_most_specific_preset_is_chosen(toy, env, name, reason):
    run = toy_run(env=env)
    assert run.preset.name == run.config.preset == name
    assert run.preset.reason == run.origins["preset"] == reason


@pytest.mark.parametrize(
    ("env", "played"), [("luanti/log", "held-out"), ("luanti/diamond", "held-out"), ("minerl/diamond", None)]
)
def test_what_learns_in_worlds_is_evaluated_in_others_that_training_never_sees(env, played):
    run = resolve([Layer("ENV", {"env": env})])
    assert run.config.evaluation_env_options.get("worlds") == played and "worlds" not in run.config.env_options
    own = resolve([Layer("ENV", {"env": env}), overrides_layer(["evaluation.env_options.worlds=[7]"])])
    assert own.config.evaluation_env_options == {**run.config.env_options, "worlds": [7]}
    assert own.origins["evaluation.env_options.worlds"] == "--set"
    assert not set(worlds.choose("train")) & set(worlds.choose("held-out"))


def test_a_gpu_changes_the_default_preset(toy, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda index: "H200")
    run = toy_run()
    assert run.preset.name == "one_gpu" and "the GPU H200" in run.preset.reason and run.config.train_ratio == 256


def test_a_named_preset_wins_over_the_match_and_loses_to_the_file(toy):
    run = toy_run(Layer("run.yaml", {"preset": "one_gpu", "train_ratio": 5}), env="CartPole-v1")
    assert run.preset.name == "one_gpu" and run.config.preset == "one_gpu"
    assert run.config.train_ratio == 5 and run.config.hyper["learning_rate"] == 4e-5


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["train_ration=3"], "setting 'train_ration' (in --set) is unknown: did you mean train_ratio?"),
        (["replay.capasity=3"], "setting 'replay.capasity' (in --set) is unknown: did you mean replay.capacity?"),
        (["capacity=3"], "setting 'capacity' (in --set) is unknown: did you mean replay.capacity?"),
        (["learning_rat=3"], "setting 'learning_rat' (in --set) is unknown: did you mean hyper.learning_rate?"),
        (["seed.x=3"], "setting 'seed.x' (in --set) is unknown: did you mean seed?"),
        (["seed=-1"], "seed must be at least 0, not -1 (set by --set)."),
        (["seed=true"], "seed must be a number, not true (set by --set)."),
        (["env_steps=many"], "env_steps must be a whole number, not 'many' (set by --set)."),
        (["env_steps=1.5"], "env_steps must be a whole number, not 1.5 (set by --set)."),
        (["train_ratio=.nan"], "train_ratio must be greater than 0, not nan (set by --set)."),
        (["engine=spark"], "engine must be 'rllib' or 'local', not 'spark' (set by --set)."),
        (["size=13m"], "hyper.size must be '1m' or '12m', not '13m' (set by --set)."),
        (["horizon=99"], "horizon (99) must be at most batch_length (64) (hyper.horizon set by --set)."),
        (["heads=3"], "hyper.heads must be a mapping of its settings (layers), not 3 (in --set)."),
        (["env_options=3"], "env_options must be a mapping, not 3 (in --set)."),
        (
            ["replay.mixture={uniform: 0.5}"],
            "replay.mixture must hold shares of at least 0 that sum to 1, not {'uniform': 0.5} (set by --set).",
        ),
        (
            ["engine=local", "num_runners=2"],
            "engine local is one process: num_runners and num_learners must be 0 (engine rllib takes more) "
            "(engine set by --set, num_runners set by --set).",
        ),
        (["seed=-1", "env_steps=0"], "seed must be at least 0, not -1 (set by --set); env_steps is wrong too."),
        (["agent=tow"], "algorithm 'tow' is unknown: did you mean toy?"),
        (["preset=zwei"], "preset 'zwei' is unknown: choose from broken, cartpole, cartpole_v1, one_gpu, two_cores."),
        (["preset=broken"], "setting 'train_ration' (in preset broken) is unknown: did you mean train_ratio?"),
        (["seed"], "--set takes key=value, such as train_ratio=64, not 'seed'."),
    ],
)  # fmt: skip
def test_a_mistake_gets_one_sentence(toy, words, sentence):
    with pytest.raises(ConfigError) as caught:
        toy_run(overrides_layer(words))
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("seed: [1, 2\n", "line 2 is not YAML"),
        ("- seed\n", "must be a mapping of settings"),
        ("3: 4\n", "must be a mapping of settings"),
    ],
)
def test_a_file_that_is_no_configuration_is_named(toy, tmp_path, text, sentence):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=sentence) as caught:
        toy_run(yaml_layer(file))
    assert str(file) in str(caught.value)


def test_a_missing_file_and_a_missing_environment_are_named(toy, tmp_path):
    with pytest.raises(ConfigError, match="nothing\\.yaml does not exist"):
        yaml_layer(tmp_path / "nothing.yaml")
    with pytest.raises(ConfigError, match="env must be given"):
        resolve([TOY])


@pytest.mark.parametrize(
    ("name", "sentence"), [("missing", "cannot be imported: No module named 'toy_nowhere'"), ("plain", "has no Config")]
)
def test_a_broken_algorithm_is_named_with_its_entry_point(toy, name, sentence):
    with pytest.raises(ConfigError, match=sentence) as caught:
        resolve([Layer("ENV", {"env": "x"}), Layer("--agent", {"agent": name})])
    assert "toy_" in str(caught.value)


def test_an_algorithm_knows_the_package_that_brings_it(toy):
    assert find_algorithm("toy").package == "toyalgo 0.3"


value = st.one_of(st.none(), st.booleans(), st.integers(), st.text())
settable = st.fixed_dictionaries(
    {},
    optional={
        "seed": st.integers(0, 2**31 - 1),
        "env_steps": st.integers(1, 10**12),
        "train_ratio": st.floats(1e-6, 1e6),
        "device": st.sampled_from(["auto", "cpu", "cuda", "cuda:3"]),
        "env_options": st.dictionaries(st.text(min_size=1), value),
        "stop_at_return": st.one_of(st.none(), st.floats(-1e9, 1e9)),
        "tracking": st.fixed_dictionaries({}, optional={"tags": st.dictionaries(st.text(min_size=1), st.text())}),
        "hyper": st.fixed_dictionaries(
            {}, optional={"learning_rate": st.floats(1e-9, 1), "size": st.sampled_from(["1m", "12m"])}
        ),
        "run_dir": st.sampled_from(["runs/a", "/tmp/b c"]),
    },
)


@given(values=settable)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_configuration_survives_yaml_and_json(toy, values):
    config = toy_run(Layer("file", values)).config
    plain = config.to_dict()
    assert RunConfig(**json.loads(json.dumps(plain))) == config
    again = resolve([Layer("config.yaml", yaml.safe_load(yaml.safe_dump(plain)))])
    assert again.config == config
