"""What training wrote, without training: the same actions from a folder that holds nothing but the policy."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from gymnasium import spaces
from oneiros.envs import registry
from oneiros.envs.spaces import ActionCodec, ObservationCodec
from oneiros.platform.checkpoint import CheckpointError
from oneiros.platform.export import ExportError, export_policy, load
from oneiros.platform.training.policy_file import load_policy

ENVS = ["CartPole-v1", "Pendulum-v1", "pixel/catch"]


def exported(checkpoint_of, tmp_path, env, **kwargs):
    checkpoint, _ = checkpoint_of(env, **kwargs)
    export_policy(checkpoint, tmp_path / "policy", env=env)
    return checkpoint, tmp_path / "policy"


@pytest.mark.parametrize("env", ENVS)
def test_an_exported_policy_acts_as_the_checkpoint_does(checkpoint_of, tmp_path, env):
    checkpoint, folder = exported(checkpoint_of, tmp_path, env)
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "policy.safetensors"]
    policy = load(folder, seed=5)
    assert policy.env == env and policy.manifest.algorithm == "dreamerv3"
    reference, _ = load_policy(checkpoint, seed=5)
    vector = registry.make_vector(env, 3, "sync", 1)
    observations, actions = ObservationCodec(policy.observation_space), ActionCodec(policy.action_space)
    batch, _ = vector.reset(seed=[0, 1, 2])
    state, expected_state, first = None, reference.initial_state(3), torch.ones(3, dtype=torch.bool)
    for _ in range(5):
        flat = {key: torch.as_tensor(value) for key, value in observations.flatten(batch).items()}
        chosen, expected_state, _ = reference.act(flat, first, expected_state, "train")
        expected, _ = actions.unflatten({key: value.numpy() for key, value in chosen.items()})
        executed, state = policy.act(batch, state, mode="train")
        np.testing.assert_array_equal(executed, expected)
        for key, value in expected_state.items():
            np.testing.assert_array_equal(state[key], value.numpy())
        assert all(policy.action_space.contains(action) for action in executed)
        batch, *_ = vector.step(executed)
        first = torch.zeros(3, dtype=torch.bool)
    vector.close()


def test_one_environment_is_played_without_a_batch_axis(checkpoint_of, tmp_path):
    _, folder = exported(checkpoint_of, tmp_path, "Pendulum-v1")
    policy = load(folder)
    env = registry.make("Pendulum-v1")
    observation, _ = env.reset(seed=0)
    state, states = None, []
    for _ in range(4):
        action, state = policy.step(observation, state)
        assert env.action_space.contains(action)
        states.append(state["deter"])
        observation, *_ = env.step(action)
    assert not np.array_equal(states[0], states[-1])
    # Without a state the episode begins again: what came before leaves no trace.
    batch = np.stack([observation, observation])
    mixed = {key: np.concatenate([value, value]) for key, value in state.items()}
    _, following = load(folder).act(batch, mixed, np.array([True, False]))
    _, fresh = load(folder).act(batch)
    np.testing.assert_allclose(following["deter"][0], fresh["deter"][0], atol=1e-6)
    assert not np.allclose(following["deter"][1], fresh["deter"][1], atol=1e-6)
    env.close()


def test_any_algorithm_is_exported_through_the_contract(checkpoint_of, tmp_path):
    _, folder = exported(checkpoint_of, tmp_path, "Pendulum-v1", agent="linear_agent:LinearAgent")
    policy = load(folder)
    action, state = policy.act(np.zeros((2, 3), np.float32))
    assert action.shape == (2, 1) and state["hidden"].shape == (2, 16)


def test_nested_spaces_keep_their_structure():
    from oneiros.platform.export.acting import first_of, nest, value_at

    space = spaces.Dict(camera=spaces.Dict(left=spaces.Box(0, 255, (16, 16, 3), np.uint8)), speed=spaces.Discrete(3))
    leaves = ObservationCodec(space).leaves
    sample = space.sample()
    again = nest((leaf, value_at(sample, leaf)) for leaf in leaves)
    assert again["speed"] == sample["speed"] and again["camera"]["left"] is sample["camera"]["left"]
    pair = (np.arange(4), {"grip": np.ones((4, 2))})
    assert first_of(pair)[0] == 0 and first_of(pair)[1]["grip"].shape == (2,)


WITHOUT = """
import sys
for name in ("ray", "mlflow"):
    sys.modules[name] = None
import numpy as np
from oneiros.platform.export import load
policy = load(sys.argv[1])
action, state = policy.step(np.zeros(3, np.float32))
print(action.shape, sorted(state))
"""


def test_it_acts_in_a_process_without_ray_and_mlflow(checkpoint_of, tmp_path):
    _, folder = exported(checkpoint_of, tmp_path, "Pendulum-v1")
    ran = subprocess.run([sys.executable, "-c", WITHOUT, str(folder)], capture_output=True, text=True, check=False)
    assert ran.stdout.strip() == "(1,) ['action', 'deter', 'stoch']", ran.stderr


def test_a_folder_is_replaced_only_if_it_is_a_policy(checkpoint_of, tmp_path):
    checkpoint, folder = exported(checkpoint_of, tmp_path, "Pendulum-v1")
    export_policy(checkpoint, folder, env="Pendulum-v1", env_options={"g": 9.0})
    assert load(folder).manifest.config["env_options"] == {"g": 9.0}
    mine = tmp_path / "thesis"
    mine.mkdir()
    (mine / "chapter").write_text("1")
    with pytest.raises(ExportError, match="thesis is not empty and no policy folder"):
        export_policy(checkpoint, mine, env="Pendulum-v1")
    with pytest.raises(ExportError, match="not empty"):
        export_policy(checkpoint, checkpoint, env="Pendulum-v1")
    assert (mine / "chapter").read_text() == "1"


def test_a_damaged_folder_is_refused_by_name(checkpoint_of, tmp_path):
    _, folder = exported(checkpoint_of, tmp_path, "Pendulum-v1")
    weights = folder / "policy.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"the checksum of policy\.safetensors differs"):
        load(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "algorithm": "nosuch"}))
    (folder / "policy.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"policy\.safetensors is missing"):
        load(folder)
