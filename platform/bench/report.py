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
