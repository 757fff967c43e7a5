"""Packages that only some of the work needs: one line says how to get one that is missing."""

import importlib

from pydarknet.errors import InputError


def need(module, extra):
    """The ``module`` of the optional package ``extra``. Raises InputError when it can't be imported."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise missing(extra, error) from None


def missing(extra, error):
    """The InputError for the ImportError of a package of that name."""
    return InputError(f"this needs the package {extra} ({error}): python3 -m pip install 'pydarknet[{extra}]'")
