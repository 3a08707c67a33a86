"""What is said of measurements: figures with their units, as rows of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Rows = list[tuple[str, str]]
BUSY = 0.1
"""Share of the cores in other processes' hands from which on a measurement says little."""


def seconds(value: float) -> str:
    """With a unit in which it has one to three digits before the point."""
    for factor, unit in ((1.0, "s"), (1e3, "ms"), (1e6, "µs")):
        if value * factor >= 1 or unit == "µs":
            return f"{value * factor:.3g} {unit}"
    raise AssertionError(value)


def spread(figures: Mapping[str, Any]) -> str:
    """``median (smallest to largest)``."""
    return f"{seconds(figures['median_s'])} ({seconds(figures['min_s'])} to {seconds(figures['max_s'])})"


def amount(value: float, unit: str) -> str:
    """With an SI prefix: ``3.2 GFLOP``."""
    for power, prefix in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if value >= 10**power:
            return f"{value / 10**power:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"


def load(share: float | None) -> str:
    """The share of the cores that others used, and whether it spoils the figures."""
    if share is None:
        return "unknown here"
    warning = ": too busy for the figures to mean much" if share > BUSY else ""
    return f"{share:.0%} of the cores{warning}"


def update_rows(result: Mapping[str, Any]) -> Rows:
    """Of ``measure_update``."""
    modes = [result["precision"], "compiled" if result["compile"] else "eager"]
    if result["cuda_graph"]:
        modes.append("captured")
    rows = [
        ("update", f"{spread(result)} over {result['updates']}"),
        ("computing", f"{seconds(result['cpu_s'])} of all threads together"),
        ("start to first steady update", f"{seconds(result['startup_s'])}, {result['startup_updates']} updates"),
        ("model", f"{result['size']}, {result['parameters']:,} parameters, {result['obs']}"),
        (
            "batch",
            f"{result['batch_size']} x {result['batch_length']}, {result['imagination_length']} imagined steps",
        ),
        ("mode", ", ".join(modes)),
        ("peak memory", amount(result["peak_memory_bytes"], "B")),
        ("device", f"{result['device']}, {result['threads']} threads, torch {result['torch']}"),
    ]
    if "flops" in result:
        rate, ceiling = result["flops_per_s"], result["ceiling_flops_per_s"]
        rows.append(("arithmetic", f"{amount(result['flops'], 'FLOP')} an update, {amount(rate, 'FLOP/s')}"))
        rows.append(("of the matrix ceiling", f"{result['share_of_ceiling']:.0%} of {amount(ceiling, 'FLOP/s')}"))
    if "launches" in result:
        text = f"{result['launches']} kernels and {result['graph_launches']} graphs by the host"
        rows.append(("launches", f"{text}, {result['kernels']} kernels on the device"))
    return [*rows, ("other processes", load(result["other_load"]))]


def operation_rows(operations: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """Of ``write_trace``: operation, milliseconds an update, calls an update."""
    return [(item["operation"], f"{item['ms']:.2f}", f"{item['calls']:.0f}") for item in operations]


def act_rows(result: Mapping[str, Any]) -> Rows:
    """Of ``measure_act``."""
    return [
        ("a step, inference included", spread(result["with_inference"])),
        ("a step without inference", spread(result["without_inference"])),
        (f"a step of all {result['envs']}", seconds(result["vector_step_s"])),
        ("measured", f"{result['steps']} steps of each of {result['envs']} environments"),
        ("model", f"{result['size']}, {result['obs']}"),
        ("device", f"{result['device']}, {result['threads']} threads, torch {result['torch']}"),
        ("other processes", load(result["other_load"])),
    ]


def replay_rows(result: Mapping[str, Any]) -> Rows:
    """Of ``measure_replay``."""
    batch = f"{result['batch_size']} x {result['batch_length'] + 1}"
    return [
        (f"sample and stage {batch}", f"{spread(result)} over {result['batches']}"),
        ("write latents back", spread(result["write_back"])),
        ("insert", f"{result['insert_rows_per_s']:,.0f} rows/s"),
        ("replay", f"{result['rows']:,} rows in {result['where']}, {result['obs']}, latents of {result['size']}"),
        ("a row", f"{result['row_bytes']:,.0f} B, {result['row_bytes_per_obs_byte']:.2f} times its observation"),
        ("device", f"{result['device']}, {result['threads']} threads"),
        ("other processes", load(result["other_load"])),
    ]


def bytes_rows(table: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Of ``bytes_per_row``: size, stride, bytes of observation, latents, rest, all, and all over the observation's."""
    return [
        (
            row["size"],
            str(row["latent_stride"]),
            *(f"{row[key]:,.0f}" for key in ("obs", "latents", "rest", "total")),
            f"{row['times_obs']:.2f}",
        )
        for row in table
    ]


def training_rows(result: Mapping[str, Any]) -> Rows:
    """Of ``measure_training``."""
    runners = f"{result['runners']} runners" if result["runners"] else "one process"
    cost = "waiting" if result["env_waits"] else "computing"
    return [
        ("env steps", f"{result['env_steps_per_s']:,.1f} a second"),
        ("updates", f"{result['updates_per_s']:,.2f} a second"),
        ("measured", f"{result['env_steps']:,} env steps, {result['updates']} updates, {seconds(result['seconds'])}"),
        ("train ratio", f"{result['actual_train_ratio']:.1f} of {result['train_ratio']:g}"),
        ("age of the acting weights", f"{result['policy_age']:.1f} updates"),
        ("start to first updates", seconds(result["startup_s"])),
        ("engine", f"{result['engine']}, {runners}, {result['envs']} environments a runner"),
        ("environment", f"{result['obs']}, {result['env_ms']:g} ms a step of {cost}"),
        ("device", f"{result['device']}, {result['threads']} threads"),
        ("other processes", load(result["other_load"])),
    ]


def comparison_rows(result: Mapping[str, Any]) -> Rows:
    """Of ``measure_against_rllib``."""
    ours, theirs = result["oneiros"], result["rllib"]
    mode = f"{ours['precision']}, {'compiled' if ours['compile'] else 'eager'}"
    return [
        ("Oneiros", f"{spread(ours)}, {ours['parameters']:,} parameters, {mode}"),
        (f"RLlib {theirs['size']}", f"{spread(theirs)}, {theirs['parameters']:,} parameters, Ray {theirs['ray']}"),
        ("speedup", f"{result['speedup']:.2f} (updates a second, by medians of {result['updates']} each, in turns)"),
        (
            "batch",
            f"{result['batch_size']} x {result['batch_length']}, {result['imagination_length']} imagined steps",
        ),
        ("device", f"{result['device']}, {result['threads']} threads, torch {result['torch']}"),
        ("other processes", load(result["other_load"])),
    ]


def growth_rows(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Of ``measure_growth``: value, cost, that over the first value's, exponent of growth since the value before."""
    slopes = [None, *result["exponents"]]
    return [
        (str(point["value"]), spread(point), f"{point['relative']:.2f}", "" if slope is None else f"{slope:.2f}")
        for point, slope in zip(result["points"], slopes, strict=True)
    ]
