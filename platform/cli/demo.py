"""``oneiros demo``."""

from __future__ import annotations

from oneiros.platform.cli import options as o

ENV = "CartPole-v1"
PRESET = "demo"
LEARNT = 400.0
"""Mean return of 20 evaluation episodes from which on the agent counts as having learnt; 500 is the most there is."""
DID_NOT_LEARN = 1


def demo(seed: o.Seed = None, run_dir: o.RunDir = None, set_: o.Set = None, json: o.Json = None) -> int:
    """Train DreamerV3 on CartPole-v1 in a few minutes on two cores, and check that it learnt.

    Uses an embedded Ray and an embedded MLflow. Exit code 1 means that the agent did not learn.
    """
    flags = o.Flags(ENV, None, tuple(set_ or ()), "dreamerv3", PRESET, seed=seed, run_dir=run_dir, engine="rllib")
    resolved = flags.resolve()

    from oneiros.platform.cli import preflight, training
    from oneiros.platform.cli.output import claim_json, console, write_json

    claim_json(json)
    preflight.check(resolved)
    trained = training.start(resolved)
    training.tell(trained)
    write_json(json, trained.figures())
    if trained.exit_code or trained.outcome.evaluation is None:
        return trained.exit_code or DID_NOT_LEARN
    reached = trained.outcome.evaluation.return_mean
    if reached < LEARNT:
        console.print(f"The agent did not learn: {reached:.1f} is below {LEARNT:.0f}.")
        return DID_NOT_LEARN
    console.print(f"The agent learnt: {reached:.1f} is at least {LEARNT:.0f} (500 is the most there is).")
    console.print(f"Evaluate it again with: oneiros evaluate {trained.run.path}")
    return 0
