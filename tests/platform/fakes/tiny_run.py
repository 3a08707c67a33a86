"""A run of a real agent so small that it learns in a second."""

from oneiros.platform.config import RunConfig

HYPER = {
    "size": "1m", "deter": 32, "hidden": 16, "groups": 4, "classes": 4, "units": 16, "depth": 2,
    "batch_size": 2, "batch_length": 8, "imagination_length": 3, "warmup": 0, "learning_rate": 1e-3,
}  # fmt: skip


def tiny(env, **changes):
    values = {
        "env": env, "engine": "local", "num_envs_per_runner": 2, "train_ratio": 1, "learning_starts": 40,
        "seed": 3, "hyper": HYPER, "replay": {"capacity": 2_000, "on_disk": False},
    }  # fmt: skip
    return RunConfig(**{**values, **changes})
