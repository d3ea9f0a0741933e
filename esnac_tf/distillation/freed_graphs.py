"""Memory of the graphs of a training, given back when it ends.

TensorFlow 2.21 keeps two things of every graph for as long as the process lives. Each call of a
`tf.custom_gradient` inside a `tf.function` (`silu` is one, an optimizer's sum of gradients over
replicas another) is entered in a registry under a name of its own, and holds its graph: in a search
that is the graph of every step's training. And the kernels of operations stay in a cache. Neither
has a public way out, so this module, alone in the project, reaches into TensorFlow; where it finds
nothing there, memory grows as it would have, and nothing else changes.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from typing import Any

_NAME = "CustomGradient-"


@contextlib.contextmanager
def graphs_freed() -> Iterator[None]:
    """Frees at its end the graphs that were traced inside it; none of them may be used later.

    That holds for a `tf.function` of the user's, too: one that was first called inside, and of
    which somebody asks for a gradient of another kind later, raises a LookupError.

    Example:
        >>> import tensorflow as tf
        >>> names = len(_registry())
        >>> with graphs_freed():
        ...     square = tf.function(lambda x: tf.nn.silu(x))
        ...     _ = square(tf.ones([2]))
        ...     del square
        >>> len(_registry()) == names
        True
    """
    before = set(_registry())
    try:
        yield
    finally:
        registry = _registry()
        for name in [name for name in registry if name not in before]:
            if name.startswith(_NAME):
                del registry[name]
        gc.collect()  # Graphs and optimizers are cycles, and large.
        with contextlib.suppress(ImportError, AttributeError):
            from tensorflow.python.eager import context

            context.context().clear_kernel_cache()


def _registry() -> dict[str, Any]:
    """TensorFlow's gradients by name, or nothing where it keeps them elsewhere."""
    try:
        from tensorflow.python.framework import ops

        registry = ops.gradient_registry._registry
    except (ImportError, AttributeError):
        return {}
    return registry if isinstance(registry, dict) else {}
