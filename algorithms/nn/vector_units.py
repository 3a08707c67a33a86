"""Whether PyTorch's compiler may trust what the processor says of its vector units.

For each kind of unit it compiles a program and starts a process that runs it, in every process that compiles: a second
of each start. Here it does so once for a processor, a compiler and a version of PyTorch.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import torch
from oneiros.algorithms.nn.precision import cpu_flags


def trust_vector_units() -> bool:
    """Let the compiler take the processor's word where every unit it names has been tried; returns whether it does."""
    try:
        from torch._inductor import config, cpu_vec_isa
        from torch._inductor.runtime import cache_dir_utils

        if config.cpp.vec_isa_ok is None and cpu_flags():
            tried = Path(cache_dir_utils.cache_dir()) / f"vector-units-{_surroundings()}"
            if not tried.exists():
                has = set(cpu_vec_isa.x86_isa_checker())
                named = [str(units) for units in cpu_vec_isa.supported_vec_isa_list if set(str(units).split()) <= has]
                if not named or [str(units) for units in cpu_vec_isa.valid_vec_isa_list()] != named:
                    return False
                tried.parent.mkdir(parents=True, exist_ok=True)
                tried.touch()
            config.cpp.vec_isa_ok = True
        return bool(config.cpp.vec_isa_ok)
    except (ImportError, AttributeError, OSError):
        # Another PyTorch keeps this elsewhere, or nothing can be kept here: then it tries them as ever.
        return False


def _surroundings() -> str:
    """What the answer depends on, as a short name."""
    compiler = os.environ.get("CXX") or "g++"
    path = shutil.which(compiler)
    stat = os.stat(os.path.realpath(path)) if path else None
    parts = (torch.__version__, compiler, path, stat and (stat.st_size, stat.st_mtime_ns), sorted(cpu_flags()))
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
