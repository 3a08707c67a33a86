"""How often trained policies get a log in held-out worlds, with 95% intervals (Wilson), beside random actions.

    python tests/benchmarks/luanti_evaluate.py play runs/log-0 --to log-0.jsonl
    python tests/benchmarks/luanti_evaluate.py player --to player.jsonl
    python tests/benchmarks/luanti_evaluate.py join luanti-log runs/log-0:log-0.jsonl runs/log-1:log-1.jsonl \\
        --player player.jsonl

``play`` plays one episode in each of fifty held-out worlds, by default those that ``luanti_random.py`` plays in, with a
run's last checkpoint, and appends a line for each; it goes on where it was stopped. Actions are sampled, as in
training. ``player`` has the scripted player, which is told where the trees are, play in the same worlds: what can be
hoped for. ``join`` writes ``tests/benchmarks/results/<name>.json``: for each run its command, configuration, success of
each milestone against env steps, wall time, commit, and what was reached in the held-out worlds.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from luanti_demonstrations import play as play_scripted
from luanti_random import interval
from luanti_record import RESULTS, write
from oneiros.algorithms.contract import Policy
from oneiros.envs import registry
from oneiros.envs.luanti.worlds import HELD_OUT
from oneiros.envs.minecraft.progress import LOG, MILESTONES
from oneiros.envs.spaces import ObservationCodec
from oneiros.platform.tracking import RunDirectory
from oneiros.platform.training.policy_file import load_policy
from record import command_of

POINTS = 40


def episode(env: Any, codec: ObservationCodec, policy: Policy, world: int) -> dict[str, Any]:
    """One episode in the world of this map seed."""
    observation, _ = env.reset(options={"world": world})
    state, first, total, length = policy.initial_state(1), True, 0.0, 0
    while True:
        batch = {key: np.asarray(value)[None] for key, value in observation.items()}
        flat = {key: torch.from_numpy(value) for key, value in codec.flatten(batch).items()}
        action, state, _ = policy.act(flat, torch.tensor([first]), state, "train")
        observation, reward, terminated, truncated, info = env.step(np.int64(action["action"].item()))
        first, total, length = False, total + float(reward), length + 1
        if terminated or truncated:
            reached = [name for name in MILESTONES if info[LOG + name] > 0]
            return {"world": world, "return": total, "length": length, "reached": reached, "fault": "fault" in info}


def play(path: Path, first: int, worlds: int, to: Path) -> None:
    """Play in the worlds that are not in the file yet."""
    run = RunDirectory.open(path)
    config = run.config()
    policy, manifest = load_policy(run.find_checkpoint("latest"), seed=1_000_000)
    known = {json.loads(line)["world"] for line in to.read_text().splitlines()} if to.is_file() else set()
    env = registry.make(config.env, **{**config.env_options, "worlds": HELD_OUT, "spare": False})
    codec = ObservationCodec(env.observation_space)
    try:
        with torch.inference_mode(), to.open("a") as file:
            for world in HELD_OUT[first : first + worlds]:
                if world not in known:
                    line = {**episode(env, codec, policy, world), "env_steps": manifest.env_steps}
                    print(json.dumps(line), file=file, flush=True)
    finally:
        env.close()


def play_player(first: int, worlds: int, to: Path) -> None:
    """Have the scripted player go for a log in the worlds that are not in the file yet; it is told where things are."""
    known = {json.loads(line)["world"] for line in to.read_text().splitlines()} if to.is_file() else set()
    env = registry.make("luanti/log", oracle=True, spare=False, time_limit=500, size=32, worlds=HELD_OUT)
    try:
        with to.open("a") as file:
            for world in HELD_OUT[first : first + worlds]:
                if world not in known:
                    one, reached = play_scripted(env, world, "log")
                    line = {"world": world, "length": one.steps, "reached": ["log"] if reached else [], "fault": False}
                    print(json.dumps(line), file=file, flush=True)
    finally:
        env.close()


def held_out(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """What was reached in the episodes of one or several policies; those that a fault cut short are left out."""
    whole = [line for line in lines if not line["fault"]]
    reached = {name: sum(name in line["reached"] for line in whole) for name in MILESTONES}
    return {
        "episodes": len(whole),
        "faults": len(lines) - len(whole),
        "share_that_reached": {
            name: {"share": round(count / len(whole), 4), "interval": interval(count, len(whole))}
            for name, count in reached.items()
            if count or name == "log"
        },
        "length_mean": round(float(np.mean([line["length"] for line in whole])), 1),
    }


def curve_of(run: Path) -> list[dict[str, Any]]:
    """Milestones of the last 20 training episodes against env steps."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row.get("episodes")]
    start = json.loads((run / "provenance.json").read_text())["created"]
    return [
        {
            **{key: row[key] for key in ("env_steps", "episodes", "updates") if key in row},
            "seconds": round(row["time"] - start, 1),
            **{name: row[f"episode/milestone_{name}"] for name in MILESTONES if row.get(f"episode/milestone_{name}")},
        }
        for row in rows[:: max(1, len(rows) // POINTS)] + rows[-1:]
    ]


def one(pair: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A run and its episodes in held-out worlds."""
    run, played = map(Path, pair.split(":"))
    lines = [json.loads(line) for line in played.read_text().splitlines()]
    provenance = json.loads((run / "provenance.json").read_text())
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"] = {key: value and Path(value).name for key, value in config["data"].items()}
    curve = curve_of(run)
    about = {
        "command": command_of(provenance),
        "seed": config["seed"],
        "demonstrations": config["data"]["prefill"] is not None,
        "env_steps": lines[0]["env_steps"],
        "updates": curve[-1]["updates"],
        "wall_seconds": curve[-1]["seconds"],
        "held_out": held_out(lines),
        "milestones_in_training": curve,
        "commit": provenance["git"]["oneiros"]["commit"],
        "versions": provenance["versions"],
        "config": {key: value for key, value in config.items() if key not in ("run_dir", "tracking")},
    }
    return about, lines


def main() -> None:
    """See the module's description."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    playing = commands.add_parser("play")
    playing.add_argument("run", type=Path)
    for command in (playing, commands.add_parser("player")):
        command.add_argument("--first", type=int, default=0, help="which of the held-out worlds to begin with")
        command.add_argument("--worlds", type=int, default=50)
        command.add_argument("--to", type=Path, required=True)
    joining = commands.add_parser("join")
    joining.add_argument("name", help="name of the result file, without .json")
    joining.add_argument("runs", nargs="+", metavar="RUN:EPISODES")
    joining.add_argument("--player", type=Path, help="what the scripted player did in the same worlds")
    joining.add_argument("--note", default="", help="what a reader must know to judge the numbers")
    arguments = parser.parse_args()
    if arguments.command != "join":
        started = time.monotonic()
        if arguments.command == "play":
            play(arguments.run, arguments.first, arguments.worlds, arguments.to)
        else:
            play_player(arguments.first, arguments.worlds, arguments.to)
        print(f"{time.monotonic() - started:.0f} s")
        return
    found = [one(pair) for pair in arguments.runs]
    random = json.loads((RESULTS / "luanti-random.json").read_text())
    result = {
        "what": "Success in held-out worlds, an episode in each, actions sampled; what training reached on the way.",
        "note": arguments.note,
        "random_actions": {key: random[key] for key in ("episodes", "steps_an_episode")}
        | {name: share for name, share in random["share_that_reached"].items() if share["share"] or name == "log"},
    }
    if arguments.player is not None:
        result["scripted_player"] = held_out([json.loads(line) for line in arguments.player.read_text().splitlines()])
    result["runs"] = [about for about, _ in found]
    if len(found) > 1:
        result["together"] = held_out([line for _, lines in found for line in lines])
    print(write(arguments.name, result))


if __name__ == "__main__":
    main()
