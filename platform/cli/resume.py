"""``oneiros resume``."""

from __future__ import annotations

from oneiros.platform.cli import options as o


def resume(path: o.RunPath, env_steps: o.EnvSteps = None, json: o.Json = None) -> int:
    """Go on with a run from its last checkpoint.

    With --env-steps a finished run is trained further. One that was interrupted in its last evaluation is evaluated.
    """
    from oneiros.platform.checkpoint import read_manifest
    from oneiros.platform.cli import preflight, training
    from oneiros.platform.cli.output import claim_json, notes, write_json
    from oneiros.platform.config import ConfigError, Resolved, find_algorithm
    from oneiros.platform.tracking import RunDirectory, provenance

    claim_json(json)
    run = RunDirectory.open(path)
    config = run.config()
    if env_steps is not None:
        if env_steps < 1:
            raise ConfigError(f"env_steps must be at least 1, not {env_steps} (set by --env-steps).")
        config = config.model_copy(update={"env_steps": env_steps})
    checkpoint = run.find_checkpoint()
    done = read_manifest(checkpoint).env_steps
    if done >= config.env_steps and run.concluded:
        raise ConfigError(
            f"{path} has taken its {config.env_steps:,} env steps; a larger --env-steps trains it further "
            f"(its last checkpoint is at {done:,})."
        )
    preflight.check(Resolved(config, find_algorithm(config.agent)), new=False)
    run.resume(config, provenance(), done)
    notes.print(f"Going on from {checkpoint}")
    trained = training.train(run, config, checkpoint)
    training.tell(trained)
    write_json(json, trained.figures())
    return trained.exit_code
