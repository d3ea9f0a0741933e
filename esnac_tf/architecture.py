"""Architectures and actions: frozen, plain values that need no TensorFlow.

An `Architecture` says everything about a Keras graph but its weights: each layer's class and
configuration, and each call of a layer with the tensors it is called on. An `ActionSet` says
what is done to a teacher to get a student.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from esnac_tf.errors import UserError

Shape = tuple[int | None, ...]
Leaf = TypeVar("Leaf")

# How channels are grouped into widths: see `esnac_tf.graph.teacher.analyse`.
CHANNEL_GROUPS = ("width", "dependency")
# How the channels that are kept are chosen: see `esnac_tf.student.StudentBuilder`.
CHANNEL_IMPORTANCE = ("l1", "l2", "batch_norm", "first")


@dataclasses.dataclass(frozen=True, order=True)
class TensorReference:
    """Output number `output` of call number `call` of the layer named `layer`."""

    layer: str
    call: int = 0
    output: int = 0


@dataclasses.dataclass(frozen=True)
class LayerConfig:
    """A layer (or a `keras.ops` node): its class and its configuration, without weights.

    Attributes:
        name: The layer's name, unique in its architecture.
        class_name: Name of the class, such as "Conv2D".
        module: The module that the class is known under; "keras.layers" for Keras's own layers.
        config: What the class's `from_config` takes.
        models: Names of the nested models that it is in, the outermost first.
    """

    name: str
    class_name: str
    module: str
    config: Mapping[str, Any]
    models: tuple[str, ...] = ()

    @property
    def is_keras_layer(self) -> bool:
        """Whether this is one of Keras's own layers, not an op, a model or a custom layer."""
        return self.module == "keras.layers"

    @property
    def is_operation(self) -> bool:
        """Whether this is a node of `keras.ops`."""
        return self._is_inside_keras("ops")

    @property
    def is_application_layer(self) -> bool:
        """Whether this is one of the layers that `keras.applications` keeps for its own networks.

        A layer of that name which somebody else wrote is in another module.
        """
        return self._is_inside_keras("applications")

    def _is_inside_keras(self, package: str) -> bool:
        parts = (self.module or "").split(".")  # a class defined in a script has no module
        return parts[0] == "keras" and package in parts

    def replace(self, **changes: Any) -> LayerConfig:
        """The same layer with some entries of its configuration changed."""
        return dataclasses.replace(self, config={**self.config, **changes})


@dataclasses.dataclass(frozen=True, eq=False)
class Constant:
    """An array among the arguments of a call, such as position codes that are added.

    Attributes:
        values: The array, with the batch axis if it has one.
        is_tensor: Whether the call takes it as a tensor, not as a NumPy array.
    """

    values: npt.NDArray[Any]
    is_tensor: bool = False

    def __eq__(self, other: object) -> bool:
        """Whether both are taken alike and hold the same numbers of the same type."""
        return isinstance(other, Constant) and self._content == other._content

    def __hash__(self) -> int:
        """Equal arrays have equal ones."""
        return hash(self._content)

    @property
    def _content(self) -> tuple[Any, ...]:
        values = self.values
        return self.is_tensor, values.dtype.name, values.shape, values.tobytes()

    def keep(self, kept: npt.NDArray[np.bool_], axis: int) -> Constant:
        """The entries along an axis that are kept.

        Example:
            >>> Constant(np.array([[1, 2, 3]])).keep(np.array([True, False, True]), 1).values
            array([[1, 3]])
        """
        return dataclasses.replace(self, values=self.values.compress(kept, axis))


@dataclasses.dataclass(frozen=True)
class LayerCall:
    """One call of a layer: what `layer(*args, **kwargs)` was given.

    `args` and `kwargs` are nested lists and dicts whose leaves are `TensorReference`s,
    `Constant`s, and whatever else Keras serializes.
    """

    layer: str
    call: int
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @property
    def inputs(self) -> tuple[TensorReference, ...]:
        """All tensors that the call takes, in order."""
        return tuple(references((self.args, self.kwargs)))

    @property
    def constants(self) -> tuple[Constant, ...]:
        """All arrays that the call takes, in order."""
        return tuple(leaves(Constant, (self.args, self.kwargs)))

    def map_references(self, function: Callable[[TensorReference], Any]) -> LayerCall:
        """The same call on other tensors."""
        return self._map(TensorReference, function)

    def map_constants(self, function: Callable[[Constant], Constant]) -> LayerCall:
        """The same call with other arrays."""
        return self._map(Constant, function)

    def _map(self, kind: type[Leaf], function: Callable[[Leaf], Any]) -> LayerCall:
        return dataclasses.replace(
            self,
            args=map_leaves(kind, function, self.args),
            kwargs=map_leaves(kind, function, dict(self.kwargs)),
        )


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A Keras functional graph as plain data.

    Attributes:
        name: The model's name.
        layers: Every layer by its name.
        calls: Every call of a layer, in topological order, the input layers' included.
        inputs: Nested structure of references, as the model takes its inputs.
        outputs: Nested structure of references, as the model gives its outputs.
        shapes: The shape of every tensor that is used, batch axis first.
        output_names: How the model names its outputs, flat, in Keras's order.
        dtypes: The dtype of every tensor that is used, by its name in Keras.
    """

    name: str
    layers: Mapping[str, LayerConfig]
    calls: tuple[LayerCall, ...]
    inputs: Any
    outputs: Any
    shapes: Mapping[TensorReference, Shape]
    output_names: tuple[str, ...] = ()
    dtypes: Mapping[TensorReference, str] = dataclasses.field(default_factory=dict)

    def layer_of(self, call: LayerCall) -> LayerConfig:
        """The layer that a call calls."""
        return self.layers[call.layer]

    def outputs_of(self, call: LayerCall) -> tuple[TensorReference, ...]:
        """The tensors that a call gives and that are used, in order; mostly there is one."""
        return self._outputs[call.layer, call.call]

    @functools.cached_property
    def _outputs(self) -> dict[tuple[str, int], tuple[TensorReference, ...]]:
        outputs: dict[tuple[str, int], tuple[TensorReference, ...]] = {}
        for reference in sorted(self.shapes):
            key = (reference.layer, reference.call)
            outputs[key] = (*outputs.get(key, ()), reference)
        return outputs

    @property
    def input_references(self) -> tuple[TensorReference, ...]:
        """The model's inputs, flat."""
        return tuple(references(self.inputs))

    @property
    def output_references(self) -> tuple[TensorReference, ...]:
        """The model's outputs, flat."""
        return tuple(references(self.outputs))


@dataclasses.dataclass(frozen=True)
class ActionSet:
    """What is done to a teacher: layers removed, widths set, skip connections added.

    Attributes:
        removed: Names of the removed nodes of the layer sequence, sorted.
        widths: (channel group, number of channels kept) pairs, sorted; groups that keep their
            width are left out.
        skips: (source node, target node) pairs of the added connections, sorted.

    Example:
        >>> actions = ActionSet.of(removed=["conv2"], widths={"64": 20}, skips=[("conv1", "conv3")])
        >>> ActionSet.from_json(actions.to_json()) == actions
        True
    """

    removed: tuple[str, ...] = ()
    widths: tuple[tuple[str, int], ...] = ()
    skips: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(
        cls,
        removed: Any = (),
        widths: Mapping[str, int] | None = None,
        skips: Any = (),
    ) -> ActionSet:
        """Actions in canonical order, each once, so that equal ones compare and hash equal."""
        return cls(
            removed=tuple(sorted({str(name) for name in removed})),
            widths=tuple(sorted((str(name), int(width)) for name, width in (widths or {}).items())),
            skips=tuple(sorted({(str(source), str(target)) for source, target in skips})),
        )

    @property
    def is_empty(self) -> bool:
        """Whether nothing is done."""
        return not (self.removed or self.widths or self.skips)

    def to_json(self) -> dict[str, Any]:
        """A JSON object with the fields `removed`, `widths` and `skips`."""
        return {
            "removed": list(self.removed),
            "widths": dict(self.widths),
            "skips": [list(pair) for pair in self.skips],
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ActionSet:
        """The inverse of `to_json`."""
        return cls.of(values["removed"], values["widths"], values["skips"])


def check_protect(protect: object) -> None:
    """Refuses what is no regular expression that could name layers to protect.

    Raises:
        UserError: So it is.

    Example:
        >>> check_protect("block1_|logits")
    """
    if not isinstance(protect, str):
        raise UserError(f"protect must be a regular expression, received {protect!r}.")
    try:
        re.compile(protect)
    except (re.error, RecursionError, OverflowError) as error:
        raise UserError(
            f"protect must be a regular expression, received {protect!r}: {error}.\n"
            r"Give for instance 'block1_|logits'; a sign meant as such takes a backslash: '\('."
        ) from None


def references(structure: Any) -> Iterator[TensorReference]:
    """All tensor references in a nested structure, in order.

    Example:
        >>> list(references([TensorReference("a"), {"x": TensorReference("b")}, 3]))
        [TensorReference(layer='a', call=0, output=0), TensorReference(layer='b', call=0, output=0)]
    """
    return leaves(TensorReference, structure)


def leaves(kind: type[Leaf], structure: Any) -> Iterator[Leaf]:
    """All values of one kind in a nested structure, in order.

    Example:
        >>> list(leaves(str, ["a", {"x": ("b", 3)}]))
        ['a', 'b']
    """
    if isinstance(structure, kind):
        yield structure
    elif isinstance(structure, Mapping):
        for value in structure.values():
            yield from leaves(kind, value)
    elif isinstance(structure, (list, tuple)):
        for value in structure:
            yield from leaves(kind, value)


def map_references(function: Callable[[TensorReference], Any], structure: Any) -> Any:
    """A nested structure with `function` applied to each tensor reference.

    Example:
        >>> map_references(lambda reference: reference.layer, [TensorReference("a"), 1])
        ['a', 1]
    """
    return map_leaves(TensorReference, function, structure)


def map_leaves(kind: type[Leaf], function: Callable[[Leaf], Any], structure: Any) -> Any:
    """A nested structure with `function` applied to each value of one kind.

    Example:
        >>> map_leaves(str, str.upper, ["a", {"x": ("b", 3)}])
        ['A', {'x': ('B', 3)}]
    """
    if isinstance(structure, kind):
        return function(structure)
    if isinstance(structure, Mapping):
        return {key: map_leaves(kind, function, value) for key, value in structure.items()}
    if isinstance(structure, (list, tuple)):
        return type(structure)(map_leaves(kind, function, value) for value in structure)
    return structure
