"""The layer sequence: what of a graph the search sees and changes, in topological order.

Input layers, preprocessing, sums and Identity layers are no nodes: the input of a node is the
sum of all its incoming edges. Consecutive layers that only move elements (a channel shuffle)
are one node.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from esnac_tf.architecture import Architecture, LayerCall, Shape, TensorReference
from esnac_tf.layers import LayerHandler, handler_of


@dataclasses.dataclass(frozen=True)
class Node:
    """One node of the layer sequence.

    Attributes:
        name: The name of its first layer (with "#n" added at the n-th call of a shared layer).
        kind: One of `esnac_tf.layers.handler.KINDS`.
        attributes: (kernel size, stride, padding, groups).
        inputs: The tensors that it takes.
        output: The tensor that it gives; of several, the first that is used.
        input_shape: Shape of its input, batch axis first; of the first one if there are several.
        output_shape: Shape of its output, batch axis first.
        takes_floats: Whether its input holds floating point numbers; what it takes else (words,
            numbers of classes) can't be added to anything.
        gives_floats: The same of its output.
        predecessors: Positions in the sequence of the nodes whose outputs it takes, sorted.
        is_removable: Whether its kind and its shapes allow to replace it by the identity.
        calls: The layer calls that it is made of.
    """

    name: str
    kind: str
    attributes: tuple[float, float, float, float]
    inputs: tuple[TensorReference, ...]
    output: TensorReference
    input_shape: Shape
    output_shape: Shape
    takes_floats: bool
    gives_floats: bool
    predecessors: tuple[int, ...]
    is_removable: bool
    calls: tuple[LayerCall, ...]


def layer_sequence(architecture: Architecture) -> tuple[Node, ...]:
    """The layer sequence of an architecture.

    Example:
        >>> import keras
        >>> from esnac_tf.graph.parsing import parse
        >>> inputs = keras.Input((4,))
        >>> hidden = keras.layers.Dense(8, name="hidden")(inputs)
        >>> model = keras.Model(inputs, keras.layers.Dense(2, name="top")(hidden))
        >>> [(node.name, node.predecessors) for node in layer_sequence(parse(model))]
        [('hidden', ()), ('top', (0,))]
    """
    consumers = _consumers(architecture)
    # Each tensor's producers as positions in the sequence: several where it is a sum.
    producers: dict[TensorReference, frozenset[int]] = {}
    nodes: list[Node] = []
    for chain in _chains(architecture, consumers):
        first, last = chain[0], chain[-1]
        handler = handler_of(architecture.layer_of(first))
        incoming: frozenset[int] = frozenset().union(
            *(producers[reference] for reference in first.inputs)
        )
        if not first.inputs or handler.is_preprocessing or _is_edge(architecture, first):
            (output,) = architecture.outputs_of(last)
            producers[output] = incoming
            continue
        nodes.append(_node(architecture, chain, tuple(sorted(incoming))))
        for output in architecture.outputs_of(last):
            producers[output] = frozenset([len(nodes) - 1])
    return tuple(nodes)


def _is_edge(architecture: Architecture, call: LayerCall) -> bool:
    """Whether a call only passes on, or sums up, what it is given."""
    layer = architecture.layer_of(call)
    is_identity = layer.is_keras_layer and layer.class_name == "Identity"
    return (is_identity and len(call.inputs) == 1) or is_plain_sum(architecture, call)


def is_plain_sum(architecture: Architecture, call: LayerCall) -> bool:
    """Whether a call is a sum of tensors of one shape: the end of a residual connection."""
    if not handler_of(architecture.layer_of(call)).is_sum or len(call.inputs) < 2:
        return False
    if call.constants:  # what else is added would be forgotten
        return False
    return len({architecture.shapes[reference] for reference in call.inputs}) == 1


def _may_be_identity(architecture: Architecture, call: LayerCall) -> bool:
    """Whether a call could give its first input back, as far as its layer's kind tells.

    A layer of the user's own may, also if it takes masks and other inputs of the model beside
    that input. What layers make for it alone would be left without a use.
    """
    layer = architecture.layer_of(call)
    if len(set(call.inputs)) == 1:  # one tensor, which attention takes twice
        return handler_of(layer).is_known or not layer.is_operation
    if handler_of(layer).is_known or layer.is_operation or not call.inputs:
        return False
    first, *others = call.inputs
    calls = {(call.layer, call.call): call for call in architecture.calls}
    aside = _upstream(calls, others) - _upstream(calls, [first])
    return all(
        not calls[key].inputs or architecture.layer_of(calls[key]).is_operation for key in aside
    )


def _upstream(
    calls: Mapping[tuple[str, int], LayerCall], references: Sequence[TensorReference]
) -> set[tuple[str, int]]:
    """The keys (layer, number) of all calls that have a part in some tensors."""
    found: set[tuple[str, int]] = set()
    waiting = list(references)
    while waiting:
        reference = waiting.pop()
        key = reference.layer, reference.call
        if key not in found:
            found.add(key)
            waiting += calls[key].inputs
    return found


def _consumers(architecture: Architecture) -> dict[TensorReference, list[LayerCall]]:
    consumers: dict[TensorReference, list[LayerCall]] = {}
    for call in architecture.calls:
        for reference in call.inputs:
            consumers.setdefault(reference, []).append(call)
    return consumers


def _chains(
    architecture: Architecture, consumers: dict[TensorReference, list[LayerCall]]
) -> list[list[LayerCall]]:
    """Calls in topological order, consecutive layers that only move elements together."""
    outputs = set(architecture.output_references)
    chains: list[list[LayerCall]] = []
    chain_of: dict[TensorReference, list[LayerCall]] = {}
    for call in architecture.calls:
        handler = handler_of(architecture.layer_of(call))
        chain = chain_of.get(call.inputs[0]) if len(call.inputs) == 1 else None
        if handler.moves_elements and chain is not None:
            chain.append(call)
        else:
            chain = [call]
            chains.append(chain)
        if handler.moves_elements:
            (output,) = architecture.outputs_of(call)
            if len(consumers.get(output, ())) == 1 and output not in outputs:
                chain_of[output] = chain
    return chains


def _node(
    architecture: Architecture, chain: Sequence[LayerCall], predecessors: tuple[int, ...]
) -> Node:
    first, last = chain[0], chain[-1]
    handler: LayerHandler = handler_of(architecture.layer_of(first))
    layer = architecture.layer_of(first)
    input_shape = architecture.shapes[first.inputs[0]]
    output = architecture.outputs_of(last)[0]
    output_shape = architecture.shapes[output]
    takes_floats, gives_floats = (
        "float" in architecture.dtypes[reference] for reference in (first.inputs[0], output)
    )
    shared = any(call.layer == first.layer and call != first for call in architecture.calls)
    return Node(
        name=first.layer if first.call == 0 else f"{first.layer}#{first.call}",
        kind=handler.kind,
        attributes=handler.attributes(layer),
        inputs=first.inputs,
        output=output,
        input_shape=input_shape,
        output_shape=output_shape,
        takes_floats=takes_floats,
        gives_floats=gives_floats,
        predecessors=predecessors,
        is_removable=(
            len(architecture.outputs_of(last)) == 1
            and input_shape == output_shape
            and takes_floats
            and gives_floats
            and None not in input_shape[1:]
            and not shared
            and output not in architecture.output_references
            and _may_be_identity(architecture, first)
        ),
        calls=tuple(chain),
    )
