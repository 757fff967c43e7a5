"""What the benchmarks share: the machine's description, its own speed limit, and a text."""

import os
import platform
import sysconfig
import time
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import numpy as np


def describe():
    """One line: processor, cores, and the versions that matter."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        processor = names[0] if names else processor
    parts = [processor, f"{os.cpu_count()} cores", f"Python {platform.python_version()}", f"NumPy {np.__version__}"]
    with suppress(metadata.PackageNotFoundError):
        parts.append(f"PyTorch {metadata.version('torch')}")
    return ", ".join(parts)


def matrix_product_peak(size=2048, rounds=6):
    """The best rate at which this machine's NumPy multiplies two large float32 matrices, in operations a second."""
    a = np.random.default_rng(0).random((size, size), np.float32)
    out = np.empty_like(a)
    best = np.inf
    for _ in range(rounds):
        start = time.perf_counter()
        np.matmul(a, a, out=out)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def python_text(size=1 << 20):
    """About ``size`` bytes of real text, the same wherever the Python version is: standard library source."""
    folder = Path(sysconfig.get_path("stdlib"))
    pieces, total = [], 0
    for path in sorted(folder.glob("*.py")):
        pieces.append(path.read_bytes())
        total += len(pieces[-1])
        if total >= size:
            break
    return np.frombuffer(b"".join(pieces)[:size], np.uint8)
