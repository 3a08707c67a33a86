"""``oneiros train``."""

from __future__ import annotations

from oneiros.platform.cli import beginning as b
from oneiros.platform.cli import options as o


def train(
    env: o.OptionalEnv = None,
    file: o.ConfigFile = None,
    agent: o.Agent = None,
    preset: o.Preset = None,
    size: o.Size = None,
    env_steps: o.EnvSteps = None,
    seed: o.Seed = None,
    run_dir: o.RunDir = None,
    engine: o.Engine = None,
    num_runners: o.NumRunners = None,
    device: o.Device = None,
    offline: b.Offline = None,
    prefill: b.Prefill = None,
    from_: b.From = None,
    reset: b.Reset = None,
    set_: o.Set = None,
    json: o.Json = None,
) -> int:
    """Train an agent on an environment.

    Settings are layered: defaults, then the preset, CONFIG.YAML, --set, flags. 'oneiros config ENV' shows the result
    and where each value comes from. Ctrl-C saves a checkpoint and says how to resume. With --offline no environment is
    stepped, and ENV may be left out where the data name theirs.
    """
    flags = o.Flags(
        env, file, tuple(set_ or ()), agent, preset, size, env_steps, seed, run_dir, engine, num_runners, device
    )
    resolved = flags.resolve(b.Beginning(offline, prefill, from_, reset).layers(env))

    from oneiros.platform.cli import preflight, training
    from oneiros.platform.cli.output import claim_json, write_json

    claim_json(json)
    preflight.check(resolved)
    trained = training.start(resolved)
    training.tell(trained)
    write_json(json, trained.figures())
    return trained.exit_code
