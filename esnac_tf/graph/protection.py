"""Layers that no student may change: their configuration and the shapes of their weights stay."""

from __future__ import annotations

import dataclasses
import re

from esnac_tf.architecture import Architecture, TensorReference
from esnac_tf.errors import UserError
from esnac_tf.graph.channels import ChannelGraph
from esnac_tf.graph.sequence import is_plain_sum

# So many names of layers are told where none matches.
_TOLD_NAMES = 8


def protected_layers(architecture: Architecture, pattern: str) -> frozenset[str]:
    """The layers whose names, or models' names, a regular expression finds, as `re.search` does.

    Args:
        architecture: The teacher's.
        pattern: A valid regular expression; an empty one protects nothing.

    Raises:
        UserError: It matches no layer.

    Example:
        >>> import keras
        >>> from esnac_tf.graph.parsing import parse
        >>> inputs = keras.Input((4,), name="x")
        >>> model = keras.Model(inputs, keras.layers.Dense(2, name="top")(inputs))
        >>> sorted(protected_layers(parse(model), "^to"))
        ['top']
    """
    if not pattern:
        return frozenset()
    found = frozenset(
        name
        for name, layer in architecture.layers.items()
        if any(re.search(pattern, own) for own in (name, *layer.models))
    )
    if not found:
        names = list(architecture.layers)
        more = ", ..." if len(names) > _TOLD_NAMES else ""
        raise UserError(
            f"protect={pattern!r} matches no layer of {architecture.name!r}.\n"
            f"Its layers are {', '.join(names[:_TOLD_NAMES])}{more}."
        )
    return found


def fix_widths(
    architecture: Architecture, channels: ChannelGraph, protected: frozenset[str]
) -> ChannelGraph:
    """The channel dependencies where what goes into protected layers and comes out is kept.

    Args:
        architecture: The teacher's.
        channels: Its channel dependencies.
        protected: Names of layers.
    """
    fixed: set[int] = set()
    for call in architecture.calls:
        if call.layer in protected:
            for reference in (*call.inputs, *architecture.outputs_of(call)):
                fixed |= channels.groups_of(channels.labels[reference])
    groups = [
        dataclasses.replace(group, bundles=(), fixed=group.slots) if index in fixed else group
        for index, group in enumerate(channels.groups)
    ]
    return dataclasses.replace(channels, groups=tuple(groups))


def terms_of_sums(
    architecture: Architecture, protected: frozenset[str]
) -> frozenset[TensorReference]:
    """The tensors that protected sums add up, and of sums among them the terms, too.

    A sum would go if all of its terms became one tensor, so the layers that make these stay.
    """
    terms: set[TensorReference] = set()
    for call in reversed(architecture.calls):
        outputs = architecture.outputs_of(call)
        is_kept = call.layer in protected or terms.intersection(outputs)
        if is_kept and is_plain_sum(architecture, call):
            terms.update(call.inputs)
    return frozenset(terms)
