"""Float32 models that compute in float16 for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import keras


def walk_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """Yields the model's layers, those of nested models and wrapped layers included.

    Example:
        >>> inner = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="dense")])
        >>> outer = keras.Sequential([keras.Input((3,)), inner])
        >>> [layer.name for layer in walk_layers(outer)][-1]
        'dense'
    """
    for layer in model.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from walk_layers(layer)
        elif isinstance(layer, keras.layers.Wrapper):
            yield layer.layer


def computes_in_float16(model: keras.Model) -> bool:
    """Whether a layer of the model computes in float16, so that losses need scaling."""
    return any(layer.compute_dtype == "float16" for layer in walk_layers(model))


@contextlib.contextmanager
def float16_compute(models: Sequence[keras.Model]) -> Iterator[None]:
    """Lets the float32 layers of the models compute in float16 inside the context.

    Variables stay float32 (policy "mixed_float16"), and so does every layer that ends in a
    softmax, whose small probabilities float16 can't hold. Layers that already have another
    policy keep it. A `tf.function` traced inside keeps computing in float16.

    Args:
        models: Built models.

    Example:
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        >>> with float16_compute([model]):
        ...     model.layers[0].compute_dtype
        'float16'
        >>> model.layers[0].compute_dtype
        'float32'
    """
    changed = []
    try:
        for model in models:
            for layer in walk_layers(model):
                if layer.dtype_policy.name == "float32" and not _is_softmax(layer):
                    changed.append((layer, layer.dtype_policy))
                    layer.dtype_policy = "mixed_float16"
        yield
    finally:
        for layer, policy in changed:
            layer.dtype_policy = policy


def _is_softmax(layer: keras.layers.Layer) -> bool:
    activation = getattr(layer, "activation", None)
    return isinstance(layer, keras.layers.Softmax) or activation is keras.activations.softmax
