"""Surgery: pure functions from a teacher's architecture to a student's.

`rewire` removes nodes and adds skip connections; `resize` gives every layer its new width and
says which of the teacher's channels each of its weights comes from.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from esnac_tf.architecture import (
    ActionSet,
    Architecture,
    LayerCall,
    LayerConfig,
    Shape,
    TensorReference,
    map_references,
)
from esnac_tf.errors import InfeasibleStudentError, UserError
from esnac_tf.graph.channels import ChannelGraph, propagate, tensor_call
from esnac_tf.graph.sequence import is_plain_sum
from esnac_tf.graph.teacher import TeacherGraph
from esnac_tf.layers import handler_of
from esnac_tf.layers.channels import PINNED, Labels

BoolArray = npt.NDArray[np.bool_]


@dataclasses.dataclass(frozen=True)
class LayerChannels:
    """Where the channels of a student's layer come from, as slot numbers by their role.

    Attributes:
        expected: Channels that the teacher's layer has weights for: those that it takes and
            those that it creates. What can't be told apart is left out.
        present: Those that the student's layer has in their place, in order: what arrives at
            it, and what it still creates.
    """

    expected: Mapping[str, Labels]
    present: Mapping[str, Labels]


def check_actions(graph: TeacherGraph, actions: ActionSet) -> None:
    """Refuses actions that this teacher does not allow.

    Raises:
        UserError: A node or a group is not known, a node can't be removed, a width is out of
            range, or a skip connection does not fit or leads to a removed node.
    """
    for name in actions.removed:
        if graph.position.get(name) not in graph.removals:
            raise UserError(
                f"Layer {name!r} can't be removed from {graph.architecture.name!r}.\n"
                "A layer may go if it is no output of the model, and its input and output have "
                "one shape and shrink by one ratio; --channel_groups=dependency allows more."
            )
    widths = {group.name: group.width for group in graph.width_groups}
    for name, width in actions.widths:
        if not 1 <= width <= widths.get(name, 0):
            raise UserError(
                f"Channel group {name!r} can't have the width {width}.\n"
                f"Groups and their largest widths: "
                f"{', '.join(f'{key}: {value}' for key, value in widths.items())}."
            )
    for source, target in actions.skips:
        if (source, target) not in graph.skip_pair_of:
            raise UserError(
                f"No skip connection can be added from {source!r} to {target!r}.\n"
                "It must lead forward, and the output of the one and the input of the other must "
                "have one shape and shrink by one ratio; --channel_groups=dependency allows more."
            )
        if target in actions.removed:
            raise UserError(
                f"No skip connection can be added from {source!r} to {target!r}: the latter is "
                "removed.\nLeave out the one or the other action."
            )


def rewire(graph: TeacherGraph, actions: ActionSet) -> Architecture:
    """The teacher's architecture with nodes removed and skip connections added.

    A removed node becomes the identity. A target of skip connections takes the sum of its
    first input and of the sources' outputs, each tensor once. If its first input is a sum
    already, what that sum holds is not added again; and the sum itself takes the sources'
    outputs where nothing else uses it. A sum of the teacher whose operands become one and the
    same tensor takes it once: what is left of a residual block whose branch is removed is the
    identity.

    Args:
        graph: The teacher.
        actions: What to do; checked by `check_actions`.

    Returns:
        The rewired architecture, with the teacher's configurations and shapes.
    """
    teacher = graph.architecture
    removed = {graph.position[name] for name in actions.removed}
    dropped = {(call.layer, call.call) for index in removed for call in graph.nodes[index].calls}
    stands_for: dict[TensorReference, TensorReference] = {
        graph.nodes[index].output: graph.nodes[index].inputs[0] for index in removed
    }

    def resolve(reference: TensorReference) -> TensorReference:
        while reference in stands_for:
            reference = stands_for[reference]
        return reference

    sources: dict[tuple[str, int], list[TensorReference]] = {}
    for source, target in actions.skips:
        first_call = graph.nodes[graph.position[target]].calls[0]
        output = graph.nodes[graph.position[source]].output
        sources.setdefault((first_call.layer, first_call.call), []).append(output)

    calls: list[LayerCall] = []
    sums: dict[TensorReference, LayerCall] = {}
    for call in teacher.calls:
        if (call.layer, call.call) in dropped:
            continue
        new_call = call.map_references(resolve)
        if is_plain_sum(teacher, call):
            (output,) = teacher.outputs_of(call)
            operands = list(dict.fromkeys(new_call.inputs))
            if len(operands) < len(set(call.inputs)):
                if len(operands) == 1:
                    stands_for[output] = operands[0]
                    continue
                new_call = dataclasses.replace(new_call, args=(operands,), kwargs={})
            sums[output] = new_call
        calls.append(new_call)

    added = {key: [resolve(output) for output in outputs] for key, outputs in sources.items()}
    rewired = dataclasses.replace(
        teacher, calls=tuple(calls), outputs=map_references(resolve, teacher.outputs)
    )
    return _add_skips(rewired, sums, added)


def _add_skips(
    architecture: Architecture,
    sums: Mapping[TensorReference, LayerCall],
    added: Mapping[tuple[str, int], Sequence[TensorReference]],
) -> Architecture:
    """The architecture with tensors added to the first inputs of some calls.

    Args:
        architecture: Any; of its layers, those that nothing calls are left out.
        sums: The plain sums in it by their outputs.
        added: For calls (layer, number) what is to be added; at a call all of it exists.
    """

    def held(reference: TensorReference) -> set[TensorReference]:
        """A tensor and, if it is a sum, all that was summed."""
        operands = sums[reference].inputs if reference in sums else ()
        return {reference}.union(*(held(operand) for operand in operands))

    firsts = {(call.layer, call.call): call.inputs[0] for call in architecture.calls if call.inputs}
    added = {
        key: [tensor for tensor in dict.fromkeys(tensors) if tensor not in held(firsts[key])]
        for key, tensors in added.items()
    }
    uses = Counter(reference for call in architecture.calls for reference in call.inputs)
    uses.update(reference for tensors in added.values() for reference in tensors)
    uses.update(architecture.output_references)
    # Sums that take what is added themselves; they move to just before the call that uses them.
    extended = {
        firsts[key]: sums[firsts[key]]
        for key, tensors in added.items()
        if tensors
        and firsts[key] in sums
        and uses[firsts[key]] == 1
        and architecture.layer_of(sums[firsts[key]]).is_keras_layer
    }
    moved = {(total.layer, total.call) for total in extended.values()}

    layers: dict[str, LayerConfig] = {}
    shapes: dict[TensorReference, Shape] = dict(architecture.shapes)
    calls: list[LayerCall] = []
    for call in architecture.calls:
        if (call.layer, call.call) in moved:
            continue
        tensors = added.get((call.layer, call.call), ())
        if tensors:
            first = call.inputs[0]
            if first in extended:
                total = extended[first]
                layers[total.layer] = architecture.layers[total.layer]
                operands = [*total.inputs, *tensors]
                calls.append(dataclasses.replace(total, args=(operands,), kwargs={}))
            else:
                skip = _skip_layer(architecture, call)
                layers[skip.name] = skip
                output = TensorReference(skip.name)
                shapes[output] = shapes[first]
                calls.append(LayerCall(skip.name, 0, ([first, *tensors],), {}))
                call = _replace_first(call, output)
        layers[call.layer] = architecture.layers[call.layer]
        calls.append(call)
    return dataclasses.replace(architecture, layers=layers, calls=tuple(calls), shapes=shapes)


def resize(
    architecture: Architecture, channels: ChannelGraph, kept: BoolArray
) -> tuple[Architecture, dict[str, LayerChannels]]:
    """Gives every layer of a rewired architecture its student's width.

    Args:
        architecture: What `rewire` gives.
        channels: The teacher's channel dependencies.
        kept: Which slots are kept, [slots].

    Returns:
        The student's architecture, and for each layer where its channels come from.

    Raises:
        InfeasibleStudentError: The kept channels fit into no shape.
    """
    shapes: dict[TensorReference, Shape] = {}
    for call in architecture.calls:
        for reference in architecture.outputs_of(call):
            shape = architecture.shapes[reference]
            labels = channels.labels.get(reference)
            if labels is None:  # a sum that `rewire` added
                shapes[reference] = shapes[call.inputs[0]]
            else:
                shapes[reference] = (shape[0], *_kept_shape(shape[1:], labels, kept))
    trace = _StudentTrace(channels, kept)
    try:
        tensors = propagate(
            dataclasses.replace(architecture, shapes=shapes), trace, channels.labels
        )
    except ValueError as error:
        raise InfeasibleStudentError(f"channels fit into no shape: {error}") from error
    batch = {reference: shape[0] for reference, shape in shapes.items()}
    shapes = {key: (batch[key], *tensor.shape) for key, tensor in tensors.items()}
    student = dataclasses.replace(architecture, shapes=shapes)
    calls = tuple(
        _with_kept_entries(architecture, call, channels, kept) for call in architecture.calls
    )
    layers = dict(architecture.layers)
    inherited: dict[str, LayerChannels] = {}
    for call in architecture.calls:
        if call.layer in inherited or not call.inputs:
            continue
        present = trace.present.get(call.layer, {})
        inherited[call.layer] = LayerChannels(channels.roles.get(call.layer, {}), present)
        with_tensors = tensor_call(student, call, tensors)
        widths = {role: len(labels) for role, labels in present.items()}
        layers[call.layer] = handler_of(with_tensors.layer).resize(with_tensors, widths)
    return dataclasses.replace(student, layers=layers, calls=calls), inherited


def _with_kept_entries(
    architecture: Architecture, call: LayerCall, channels: ChannelGraph, kept: BoolArray
) -> LayerCall:
    """The call with the entries of kept channels in the arrays that it takes."""
    if not call.constants:
        return call
    handler = handler_of(architecture.layer_of(call))
    labels = channels.labels[architecture.outputs_of(call)[0]]
    are_kept = _is_kept(labels, kept)
    return call.map_constants(lambda constant: handler.resize_constant(constant, are_kept))


class _StudentTrace:
    """Follows the kept channels through a student: the second of the two traces."""

    def __init__(self, channels: ChannelGraph, kept: BoolArray) -> None:
        self._channels = channels
        self._kept = kept
        self.present: dict[str, dict[str, Labels]] = {}

    def source(self, layer: str, length: int, role: str = "out") -> Labels:
        created = self._channels.created_roles[layer][role]
        left = created[_is_kept(created, self._kept)]
        self.present.setdefault(layer, {})[role] = left
        return left

    def consume(self, layer: str, channels: Labels, role: str = "in") -> None:
        self.present.setdefault(layer, {}).setdefault(role, channels)

    def tie(self, first: Labels, second: Labels) -> None:
        pass

    def pin(self, channels: Labels) -> None:
        pass

    def balance(self, rows: Labels) -> None:
        pass


def _is_kept(labels: Labels, kept: BoolArray) -> BoolArray:
    return (labels == PINNED) | kept[labels]


def _kept_shape(shape: Shape, labels: Labels, kept: BoolArray) -> Shape:
    """A tensor's shape in the student: kept channels counted along each labelled axis.

    Axes are counted from the last to the first, as a Reshape fills them.
    """
    lengths = list(shape)
    mask = _is_kept(labels, kept)
    for axis in reversed(range(len(shape))):
        counts = mask.sum(axis=axis, keepdims=True)
        if labels.shape[axis] > 1:
            lengths[axis] = int(counts.max())
        mask = counts > 0
    return tuple(lengths)


def _skip_layer(architecture: Architecture, call: LayerCall) -> LayerConfig:
    """The sum in front of a target of skip connections; its name is not taken yet."""
    name = f"{call.layer}_skip" if call.call == 0 else f"{call.layer}_{call.call}_skip"
    while name in architecture.layers:
        name += "_"
    config = {"name": name}
    if "dtype" in architecture.layers[call.layer].config:
        config["dtype"] = architecture.layers[call.layer].config["dtype"]
    return LayerConfig(name, "Add", "keras.layers", config)


def _replace_first(call: LayerCall, replacement: TensorReference) -> LayerCall:
    """The call with its first tensor replaced."""
    first = iter([replacement])
    return call.map_references(lambda reference: next(first, reference))
