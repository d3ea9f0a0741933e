"""Layers removed, connections added, and action sets applied."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import keras

from esnac_tf.architecture import CHANNEL_GROUPS, ActionSet, check_protect
from esnac_tf.compilation import compile_like
from esnac_tf.errors import InfeasibleStudentError, UserError
from esnac_tf.graph.teacher import TeacherGraph, analyse
from esnac_tf.student import StudentBuilder
from esnac_tf.surgery.places import layer_name, removable_node, skip_pair


def apply(
    model: keras.Model,
    actions: ActionSet,
    channel_groups: str = "dependency",
    channel_importance: str = "l2",
    protect: str = "",
) -> keras.Model:
    """Does several things at once: layers removed, widths set, skip connections added.

    Args:
        model: A functional or built Sequential model.
        actions: What is done; `widths` are those of channel groups by name.
        channel_groups: "dependency": the groups of `esnac_tf.surgery.channel_groups`; "width":
            groups by width, as the actions that a search with that setting found.
        channel_importance: "l1" or "l2": the channels with the largest norms are kept;
            "batch_norm": those with the largest scales of BatchNormalization; "first": the
            first ones.
        protect: A regular expression: layers whose names it finds stay as they are, and all
            channels that they take and make keep their widths.

    A trial of a search is rebuilt with the `channel_groups`, `channel_importance` and `protect`
    that the search's config.json has; with others it may be another model, and nothing tells.

    Returns:
        The changed model.

    Raises:
        UserError: The model does not allow these actions, a setting is none of those, or
            `protect` matches no layer.

    Example:
        >>> inputs = keras.Input((4,))
        >>> hidden = keras.layers.Dense(8, name="hidden")(inputs)
        >>> hidden = keras.layers.ReLU(name="relu")(hidden)
        >>> model = keras.Model(inputs, keras.layers.Dense(2)(hidden))
        >>> apply(model, ActionSet.of(removed=["relu"], widths={"hidden": 3})).count_params()
        23
    """
    check_protect(protect)
    graph = analyse(model, channel_groups, protect)
    _check_group_names(model, graph, actions, channel_groups, protect)
    return build(StudentBuilder(model, graph, channel_importance), model, actions)


def _check_group_names(
    model: keras.Model,
    graph: TeacherGraph,
    actions: ActionSet,
    channel_groups: str,
    protect: str,
) -> None:
    """Refuses widths of groups that the model has with the other setting of `channel_groups`.

    Raises:
        UserError: There are such.
    """
    given = {name for name, _ in actions.widths}
    unknown = sorted(given - {group.name for group in graph.width_groups})
    [other] = set(CHANNEL_GROUPS) - {channel_groups}
    if unknown and given <= {group.name for group in analyse(model, other, protect).width_groups}:
        raise UserError(
            f"The model {model.name!r} has no channel group {unknown[0]!r} with "
            f"channel_groups={channel_groups!r}.\n"
            f"With channel_groups={other!r} it has: give apply the setting of the search that "
            "found these actions."
        )


def remove_layer(model: keras.Model, layer: str | keras.layers.Layer) -> keras.Model:
    """Removes a layer: what it took is given to the layers after it.

    A sum of which all operands but one are gone goes, too, so a residual block without its
    branch is the identity.

    Args:
        model: A functional or built Sequential model.
        layer: One of its layers, or the name of one.

    Returns:
        The model without the layer.

    Raises:
        UserError: There is no such layer, or it can't be removed: `removable_layers` lists
            those that can.

    Example:
        >>> inputs = keras.Input((4,))
        >>> hidden = keras.layers.ReLU(name="relu")(keras.layers.Dense(8)(inputs))
        >>> model = keras.Model(inputs, keras.layers.Dense(2)(hidden))
        >>> len(model.layers), len(remove_layer(model, "relu").layers)
        (4, 3)
    """
    return remove_layers(model, [layer])


def remove_layers(model: keras.Model, layers: Iterable[str | keras.layers.Layer]) -> keras.Model:
    """Removes layers: each becomes the identity.

    Args:
        model: A functional or built Sequential model.
        layers: Some of its layers, or their names.

    Returns:
        The model without them.

    Raises:
        UserError: There is no such layer, or one can't be removed.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8)])
        >>> for name in ("first", "second", "third"):
        ...     model.add(keras.layers.Dense(8, name=name))
        >>> [layer.name for layer in remove_layers(model, ["first", "second"]).layers[2:]]
        ['third']
    """
    if isinstance(layers, str):
        raise UserError(
            f"Expected a list of layers, received the name {layers!r}.\n"
            "Give [name], or use esnac_tf.surgery.remove_layer."
        )
    graph = analyse(model, "dependency")
    names = [removable_node(graph, layer_name(model, layer)) for layer in layers]
    return build(StudentBuilder(model, graph), model, ActionSet.of(removed=names))


def add_skip_connection(
    model: keras.Model, source: str | keras.layers.Layer, target: str | keras.layers.Layer
) -> keras.Model:
    """Adds the output of one layer to the input of a later one.

    Args:
        model: A functional or built Sequential model.
        source: The layer whose output is added, or its name.
        target: The layer that takes the sum, or its name.

    Returns:
        The model with the connection: an `Add` named after the target, or one operand more for
        a sum that is there.

    Raises:
        UserError: There is no such layer, or they can't be connected: `skip_connections` lists
            the pairs that can.

    Example:
        >>> model = keras.Sequential([keras.Input((4,))])
        >>> for name in ("first", "second", "third"):
        ...     model.add(keras.layers.Dense(6, name=name))
        >>> [layer.name for layer in add_skip_connection(model, "first", "third").layers[1:]]
        ['first', 'second', 'third_skip', 'third']
    """
    graph = analyse(model, "dependency")
    pair = skip_pair(graph, layer_name(model, source), layer_name(model, target))
    return build(StudentBuilder(model, graph), model, ActionSet.of(skips=[pair]))


def build(builder: StudentBuilder, model: keras.Model, actions: ActionSet) -> keras.Model:
    """The changed model, compiled as the given one is, with a warning where that fails.

    Raises:
        UserError: The actions are not allowed, or give no model that Keras can build.
    """
    try:
        student = builder.build(actions)
    except InfeasibleStudentError as error:
        raise UserError(
            f"The changed {model.name!r} can't be built: {error}.\nChange something else."
        ) from error
    try:
        compile_like(student, model)
    except UserError as error:
        warnings.warn(str(error), stacklevel=3)
    return student
