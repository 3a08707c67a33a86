"""The exported graph in onnxruntime beside the policy in PyTorch, episode after episode, in the environment itself."""

import gymnasium
import numpy as np
import pytest
import torch
from oneiros.envs import registry
from oneiros.platform.export import ExportError, export_policy, load

onnxruntime = pytest.importorskip("onnxruntime", reason="pip install 'oneiros[onnx]'")
pytest.importorskip("onnxscript", reason="pip install 'oneiros[onnx]'")
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def graph_of(checkpoint_of, tmp_path_factory):
    made = {}

    def make(env):
        if env not in made:
            made[env] = export(env)
        return made[env]

    def export(env):
        checkpoint, _ = checkpoint_of(env)
        folder = tmp_path_factory.mktemp("onnx") / "policy"
        manifest = export_policy(checkpoint, folder, env=env, onnx=True)
        session = onnxruntime.InferenceSession(str(folder / "policy.onnx"), providers=["CPUExecutionProvider"])
        return folder, manifest, session

    return make


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "pixel/catch"])
def test_the_graph_plays_whole_episodes_as_the_policy_does(graph_of, env_id):
    folder, manifest, session = graph_of(env_id)
    facts = manifest.config["onnx"]
    assert facts["difference"] <= facts["tolerance"] == TOLERANCE
    assert {entry.name for entry in session.get_inputs()} == facts["inputs"].keys()
    assert [entry.name for entry in session.get_outputs()] == list(facts["outputs"])
    policy, env = load(folder), registry.make(env_id)
    assert isinstance(env, gymnasium.Env)
    observation, _ = env.reset(seed=4)
    inputs = {key: np.zeros((1, *shape), dtype) for key, (dtype, *shape) in facts["inputs"].items()}
    # An empty state; explore is false: the best action.
    inputs["is_first"][:] = True
    state = None
    generator = policy.policy.act_generator
    for _ in range(12):
        # The latent that the policy draws now: it samples what it believes of the world even when it takes its best.
        same = torch.Generator()
        same.set_state(generator.get_state())
        drawn = torch.rand(inputs["noise/uniform/latent"].shape, generator=same).numpy()
        action, following = policy.step(observation, state)
        inputs |= {"obs": np.asarray(observation)[None], "noise/uniform/latent": drawn}
        out = dict(zip(facts["outputs"], session.run(None, inputs), strict=True))
        np.testing.assert_allclose(out["action"][0], action, atol=TOLERANCE)
        assert env.action_space.contains(out["action"][0])
        for key, value in following.items():
            np.testing.assert_allclose(out[f"next_policy_state/{key}"], value, atol=TOLERANCE)
            inputs[f"policy_state/{key}"] = out[f"next_policy_state/{key}"]
        inputs["is_first"][:] = False
        state = following
        observation, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            observation, _ = env.reset()
            inputs["is_first"][:], state = True, None
    env.close()


def test_exploring_follows_the_noise_that_it_is_given(graph_of):
    _, manifest, session = graph_of("pixel/catch")
    inputs = {key: np.zeros((64, *shape), dtype) for key, (dtype, *shape) in manifest.config["onnx"]["inputs"].items()}
    inputs["is_first"][:], inputs["explore"][:] = True, True
    inputs["noise/uniform/choice"] = np.linspace(0, 0.999, 64, dtype=np.float32)[:, None]
    (actions,) = session.run(["action"], inputs)
    assert list(actions) == sorted(actions) and set(actions) == {0, 1, 2}
    inputs["explore"][:] = False
    (best,) = session.run(["action"], inputs)
    assert len(set(best)) == 1


def test_an_algorithm_that_cannot_say_its_step_is_refused_in_one_sentence(checkpoint_of, tmp_path):
    checkpoint, _ = checkpoint_of("Pendulum-v1", agent="linear_agent:LinearAgent")
    with pytest.raises(ExportError, match=r"linear_agent:LinearAgent has no step_module"):
        export_policy(checkpoint, tmp_path / "policy", env="Pendulum-v1", onnx=True)
    assert not list(tmp_path.iterdir())
