"""Which channels of a model have to go together, and which can't go at all."""

from __future__ import annotations

import dataclasses

import keras

from esnac_tf.graph.protection import fixed_groups, union
from esnac_tf.graph.teacher import analyse


@dataclasses.dataclass(frozen=True)
class ChannelGroup:
    """Channels with one width: it changes in all layers of the group or in none.

    Attributes:
        name: Name of the first layer that makes channels of the group; with "/" and their kind
            where it makes several, as a Bidirectional does.
        width: Its number of channels; those that are summed element by element count once.
        made_by: The layers that make its channels, such as convolutions and dense layers.
        layers: These, and all layers whose outputs hold channels of it.
        taken_by: The layers that take its channels and make others of them.
        why_fixed: Why its width can't change, in a few words; None if it can.
    """

    name: str
    width: int
    made_by: tuple[str, ...]
    layers: tuple[str, ...]
    taken_by: tuple[str, ...]
    why_fixed: str | None

    @property
    def can_shrink(self) -> bool:
        """Whether any channel of the group can be removed."""
        return self.why_fixed is None


def channel_groups(model: keras.Model) -> list[ChannelGroup]:
    """The channel groups of a model: those whose widths can be set, and those whose can't.

    Args:
        model: A functional or built Sequential model.

    Returns:
        The groups, in the order in which their first layers run.

    Raises:
        UserError: The model has no graph.

    Example:
        >>> inputs = keras.Input((4,))
        >>> first = keras.layers.Dense(8, name="first")(inputs)
        >>> hidden = keras.layers.Add(name="sum")([first, keras.layers.Dense(8, name="b")(first)])
        >>> groups = channel_groups(keras.Model(inputs, keras.layers.Dense(2, name="top")(hidden)))
        >>> groups[0].made_by, groups[0].layers, groups[0].taken_by
        (('first', 'b'), ('first', 'b', 'sum'), ('b', 'top'))
        >>> [(group.name, group.width, group.why_fixed) for group in groups]
        [('first', 8, None), ('top', 2, 'they are an output of the model')]
    """
    graph = analyse(model, "dependency")
    architecture, channels = graph.architecture, graph.channels
    tensors = {
        reference: channels.groups_of(labels) for reference, labels in channels.labels.items()
    }
    made_by: dict[int, dict[str, None]] = {}  # dicts, as they keep the order and no name twice
    layers: dict[int, dict[str, None]] = {}
    taken_by: dict[int, dict[str, None]] = {}
    for call in architecture.calls:
        made = channels.created_roles.get(call.layer, {}).values()
        makes = union(map(channels.groups_of, made))  # heads of attention are in no output
        holds = union(tensors[reference] for reference in architecture.outputs_of(call))
        for index in makes:
            made_by.setdefault(index, {})[call.layer] = None
        for index in makes | holds:
            layers.setdefault(index, {})[call.layer] = None
        for index in union(tensors[reference] for reference in call.inputs):
            if makes or index not in holds:
                taken_by.setdefault(index, {})[call.layer] = None
    reasons = fixed_groups(architecture, channels)
    return [
        ChannelGroup(
            group.name,
            group.width,
            tuple(made_by.get(index, ())),
            tuple(layers.get(index, ())),
            tuple(taken_by.get(index, ())),
            reasons.get(index),
        )
        for index, group in enumerate(channels.groups)
    ]
