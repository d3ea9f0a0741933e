"""esnac_tf: makes trained Keras models small by searching for a smaller architecture.

The root is light on purpose: TensorFlow is imported only when a function that needs it
is first used.

Example:
    >>> import esnac_tf
    >>> esnac_tf.__version__
    '0.1.0'
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = ["__version__", "compress", "read_trials", "search_students", "surgery"]

if TYPE_CHECKING:
    from esnac_tf import surgery
    from esnac_tf.compression import compress, search_students
    from esnac_tf.trial_log import read_trials


def __getattr__(name: str) -> Any:
    """Loads the public functions and `surgery` on first use (PEP 562)."""
    if name in ("compress", "search_students"):
        from esnac_tf import compression

        return getattr(compression, name)
    if name == "read_trials":
        from esnac_tf.trial_log import read_trials

        return read_trials
    if name == "surgery":
        return importlib.import_module("esnac_tf.surgery")
    raise AttributeError(f"module 'esnac_tf' has no attribute {name!r}")
