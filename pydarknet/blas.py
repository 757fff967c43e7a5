"""How many threads NumPy's matrix products run on: OpenBLAS, which NumPy's own packages bring, can be asked and told.

Source: OpenBLAS's ``openblas_get_num_threads`` and ``openblas_set_num_threads``; NumPy's packages put
``scipy_`` before and ``64_`` behind the names.
"""

import ctypes
import functools
import sys
from contextlib import contextmanager

import numpy as np  # noqa: F401 (it loads the library that is looked for here)

_NAMES = "scipy_openblas_{}_num_threads64_", "openblas_{}_num_threads64_", "openblas_{}_num_threads"
_HOMES = "numpy._core._multiarray_umath", "numpy.core._multiarray_umath"  # of NumPy 2 and 1


@functools.cache
def _functions():
    """The library's functions to get and to set the number, or None if it is another library."""
    home = next((sys.modules[name] for name in _HOMES if name in sys.modules), None)
    if home is None:
        return None
    library = ctypes.CDLL(home.__file__)
    for name in _NAMES:
        try:
            return getattr(library, name.format("get")), getattr(library, name.format("set"))
        except AttributeError:
            pass
    return None


def threads():
    """On how many threads a large matrix product runs: as a rule one a core; None if the library does not tell."""
    functions = _functions()
    return functions[0]() if functions else None


@contextmanager
def limited(count):
    """While it lasts, matrix products run on at most ``count`` threads; of a library that cannot be told, as many as before."""
    before = threads()
    if before is None or before <= count:
        yield
        return
    _, set_threads = _functions()
    set_threads(count)
    try:
        yield
    finally:
        set_threads(before)
