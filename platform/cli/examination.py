"""What this machine can do for Oneiros, item by item."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from oneiros.platform.tracking.provenance import machine, processor_name

State = Literal["works", "missing", "absent", "risk"]

PACKAGES = {
    "torch": "pip install torch",
    "gymnasium": "pip install gymnasium",
    "ray": "pip install 'ray[default,tune,rllib]'",
    "mlflow": "pip install mlflow",
    "imageio-ffmpeg": "pip install imageio-ffmpeg",
}
SHARED_MEMORY_BYTES = 2 * 10**9


@dataclass(frozen=True)
class Item:
    """One thing that was looked at."""

    name: str
    state: State
    """``works``; ``missing``: training needs it; ``absent``: it would help, and nothing depends on it; ``risk``: it
    works for more people than it should."""
    detail: str
    mend: str = ""
    """The command, or the words, that bring it."""


def examine() -> list[Item]:
    """Look at everything; an examination that fails is an item itself."""
    items: list[Item] = []
    for look in (
        _python,
        _packages,
        _processor,
        _compiler,
        _gpu,
        _ray,
        _mlflow,
        _exposure,
        _algorithms,
        _suites,
        _disk,
    ):
        try:
            items += look()
        except Exception as error:
            items.append(Item(look.__name__.strip("_"), "missing", f"{type(error).__name__}: {error}"))
    return items


def _python() -> Iterator[Item]:
    fits = (3, 11) <= sys.version_info[:2] <= (3, 13)
    mend = "" if fits else "install Python 3.11, 3.12 or 3.13"
    yield Item("python", "works" if fits else "missing", f"{platform.python_version()} at {sys.executable}", mend)
    yield Item("oneiros", "works", version("oneiros"))


def _packages() -> Iterator[Item]:
    for package, install in PACKAGES.items():
        try:
            yield Item(package, "works", version(package))
        except PackageNotFoundError:
            # The engine `local` needs no Ray, and a run without MLflow keeps its record in files.
            state: State = "absent" if package in ("ray", "mlflow", "imageio-ffmpeg") else "missing"
            yield Item(package, state, "not installed", install)


def _processor() -> Iterator[Item]:
    import torch
    from oneiros.algorithms.nn.precision import BF16_UNITS, cpu_flags

    here = machine()
    yield Item(
        "processor",
        "works",
        f"{processor_name()}, {here['cores']} cores, {here['memory_bytes'] / 1e9:.0f} GB; "
        f"torch uses {torch.get_num_threads()} threads",
    )
    flags, units = cpu_flags(), []
    for name, flag, use in (
        ("AMX bfloat16", "amx_bf16", "bfloat16 matrix products are fast"),
        ("AVX-512 bfloat16", "avx512_bf16", "bfloat16 matrix products are faster than float32 ones"),
        ("AVX-512", "avx512f", "float32 vectors of 16"),
    ):
        if flag in flags:
            units += [name] if flag in BF16_UNITS else []
            yield Item(name, "works", use)
        else:
            yield Item(name, "absent", "the processor lacks it", "another processor")
    reason = f"the processor has {' and '.join(units)}" if units else "the processor has no units for bfloat16 products"
    yield Item("precision on the CPU", "works", f"{_precision('cpu')}, where precision is auto: {reason}")


def _precision(device: str) -> str:
    """What agents compute in on ``device`` unless they are told."""
    import torch
    from oneiros.algorithms.nn.precision import choose_precision

    return str(choose_precision("auto", torch.device(device))).removeprefix("torch.")


def _compiler() -> Iterator[Item]:
    names = [name for name in (os.environ.get("CXX"), "g++", "clang++") if name]
    if found := next(filter(None, map(shutil.which, names)), None):
        yield Item("C++ compiler", "works", f"{found}: torch.compile works on the CPU")
    else:
        yield Item("C++ compiler", "absent", "updates run uncompiled", "apt-get install g++")


def _gpu() -> Iterator[Item]:
    import torch
    from oneiros.algorithms.nn.precision import lacking_for_triton

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(index)
            name = torch.cuda.get_device_name(index)
            yield Item(
                f"cuda:{index}",
                "works",
                f"{name}, {free / 1e9:.0f} of {total / 1e9:.0f} GB free, CUDA {torch.version.cuda}; "
                f"{_precision(f'cuda:{index}')}, where precision is auto",
            )
        if lacking := lacking_for_triton(torch.device("cuda")):
            yield Item("compiling for CUDA", "absent", f"updates are captured uncompiled: it takes {lacking}")
    elif shutil.which("nvidia-smi"):
        yield Item(
            "GPU",
            "absent",
            f"there is an NVIDIA driver, but torch {torch.__version__} does not use it",
            "pip install torch --index-url https://download.pytorch.org/whl/cu126",
        )
    else:
        yield Item("GPU", "absent", "no NVIDIA driver: training uses the CPU")


def _ray() -> Iterator[Item]:
    address = os.environ.get("RAY_ADDRESS")
    if address:
        yield Item("Ray cluster", "works", f"RAY_ADDRESS is {address}")
    shared = Path("/dev/shm")
    if shared.is_dir():
        size = shutil.disk_usage(shared).total
        if size < SHARED_MEMORY_BYTES:
            yield Item(
                "shared memory",
                "absent",
                f"/dev/shm has {size / 1e9:.1f} GB: Ray keeps its objects on the slower disk",
                "docker run --shm-size=4g",
            )
        else:
            yield Item("shared memory", "works", f"/dev/shm has {size / 1e9:.1f} GB")


def _mlflow() -> Iterator[Item]:
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        yield Item("MLflow store", "works", "mlflow.db beside each run directory (MLFLOW_TRACKING_URI is not set)")
        return
    if not uri.startswith(("http://", "https://")):
        yield Item("MLflow store", "works", f"MLFLOW_TRACKING_URI is {uri}")
        return
    from urllib.error import URLError
    from urllib.request import urlopen

    try:
        with urlopen(f"{uri.rstrip('/')}/health", timeout=3):
            yield Item("MLflow server", "works", uri)
    except (URLError, OSError) as error:
        detail = f"{uri} does not answer ({error}): runs are sent once it does"
        yield Item("MLflow server", "absent", detail, "start the server, or unset MLFLOW_TRACKING_URI")


def _exposure() -> Iterator[Item]:
    from oneiros.platform.jobs.exposure import exposures, is_exposed_uri

    for one in exposures():
        name, does = _EXPOSED[one.kind]
        detail = f"{one.address} is open to the network and wants no token: it {does}"
        yield Item(f"{name} exposed", "risk", detail, one.mend)
    for variable, token in (
        ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_TOKEN"),
        ("RAY_API_SERVER_ADDRESS", "RAY_AUTH_MODE"),
    ):
        uri = os.environ.get(variable, "")
        if os.environ.get(token) and is_exposed_uri(uri):
            yield Item(f"{variable}", "risk", f"a token goes to {uri} unencrypted", "use https, or an SSH tunnel")


_EXPOSED = {
    "ray": ("Ray dashboard", "runs whatever it is sent"),
    "mlflow": ("MLflow server", "shows and changes every run"),
}


def _algorithms() -> Iterator[Item]:
    from oneiros.platform.config import ConfigError, list_algorithms

    for name, algorithm in list_algorithms().items():
        try:
            presets = algorithm.presets
            yield Item(f"algorithm {name}", "works", f"{algorithm.package}, {len(presets)} presets")
        except ConfigError as error:
            mend = f"pip install --upgrade {algorithm.package.split()[0]}"
            yield Item(f"algorithm {name}", "missing", str(error), mend)


def _suites() -> Iterator[Item]:
    from oneiros.envs.registry import suites

    for suite in suites():
        name = f"suite {suite.name}"
        if suite.available:
            yield Item(name, "works", f"{len(suite.tasks)} tasks")
        elif suite.error:
            yield Item(name, "absent", suite.error, f"pip install --upgrade {suite.source}")
        else:
            yield Item(name, "absent", f"lacks {', '.join(suite.missing)}", suite.install)


def _disk() -> Iterator[Item]:
    free = shutil.disk_usage(Path.cwd()).free
    writable = os.access(Path.cwd(), os.W_OK)
    yield Item(
        "disk",
        "works" if writable else "missing",
        f"{free / 1e9:.0f} GB free at {Path.cwd()}" + ("" if writable else ", which cannot be written to"),
        "" if writable else "change to a folder of yours, or give --run-dir",
    )
