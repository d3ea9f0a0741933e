"""What `supported_models.py` does with each model."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

NUM_CANDIDATES = 500
NUM_EXAMPLES = 4
NUM_TOKENS = 50
# Of an axis that may be of any length.
LENGTH = 12
# Of the largest output: the student computes what its teacher does, a SavedModel what TensorFlow
# makes of it.
COPY_TOLERANCE = 1e-6
EXPORT_TOLERANCE = 1e-3

Report = Callable[..., None]
Values = Mapping[str, Sequence[Any]]


def inputs_for(model: Any, values: Values) -> Any:
    """Random inputs in the structure that a model takes.

    Pictures have values from 0 to 255, other floats are normal, integers are tokens.

    Args:
        model: A functional model.
        values: For inputs by their names, what their elements are drawn from instead.
    """
    import keras
    import numpy as np

    generator = np.random.default_rng(1)

    def draw(tensor: Any) -> Any:
        shape = (NUM_EXAMPLES, *(length or LENGTH for length in tensor.shape[1:]))
        if tensor.name in values:
            drawn = generator.choice(np.asarray(values[tensor.name]), shape)
        elif "float" not in tensor.dtype:
            drawn = generator.integers(NUM_TOKENS, size=shape)
        elif len(shape) == 4:
            drawn = generator.uniform(0, 255, shape)
        else:
            drawn = generator.normal(size=shape)
        return keras.ops.convert_to_tensor(drawn, tensor.dtype)

    return keras.tree.map_structure(draw, model.input)


def randomized(model: Any, values: Values) -> Any:
    """The model with random scales and shifts, and statistics near to those of its activations.

    Untrained networks have scales of 1 and shifts of 0, so a mistake with them would not show;
    and outputs would vanish or explode if the statistics were random.
    """
    import numpy as np

    generator = np.random.default_rng(0)
    for weight in model.weights:
        name = weight.path.rsplit("/", 1)[-1]
        if name in ("gamma", "beta", "bias"):
            center, spread = (1.0, 0.5) if name == "gamma" else (0.0, 0.1)
            weight.assign(generator.uniform(center - spread, center + spread, weight.shape))
    for norm in measure_statistics(model, inputs_for(model, values)):
        norm.moving_variance.assign(
            norm.moving_variance * generator.uniform(0.8, 1.25, norm.moving_variance.shape)
        )
    return model


def measure_statistics(model: Any, inputs: Any) -> list[Any]:
    """Gives a model's layers of batch normalization the statistics of these inputs.

    With those that a student inherits, the outputs of a deep network explode, and what two
    computations round differently makes all the difference.

    Returns:
        The layers.
    """
    import keras

    norms = [layer for layer in layers_of(model) if hasattr(layer, "moving_variance")]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    keras.utils.set_random_seed(0)
    model(inputs, training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return norms


def layers_of(model: Any) -> Iterator[Any]:
    """The layers of a model, those of nested models included."""
    for layer in model.layers:
        yield layer
        if hasattr(layer, "layers"):
            yield from layers_of(layer)


def examine(teacher: Any, values: Values, folder: str, report: Report) -> None:
    """Does with a model all that this project does but for the search.

    Args:
        teacher: A functional model.
        values: As for `inputs_for`.
        folder: A folder to write in.
        report: Is told what is found, and as `step` what is done next; "done" at the end.

    Raises:
        AssertionError: Something is not as it should be. Other exceptions are failures, too.
    """
    import keras
    import numpy as np
    import tensorflow as tf

    from esnac_tf import exporters
    from esnac_tf.architecture import ActionSet
    from esnac_tf.graph.cost import count_params
    from esnac_tf.graph.teacher import analyse
    from esnac_tf.student import StudentBuilder

    inputs = inputs_for(teacher, values)

    def outputs_of(model: Any) -> Any:
        return keras.tree.map_structure(np.asarray, model(inputs, training=False))

    report(step="reading the graph")
    graph = analyse(teacher, "dependency")
    num_params = count_params(teacher)
    report(
        num_params=num_params,
        layers=len(graph.architecture.layers),
        groups=len(graph.width_groups),
        removable=len(graph.removals),
        skip_pairs=len(graph.skip_pairs),
    )

    report(step="no action")
    builder = StudentBuilder(teacher, graph)
    expected = outputs_of(teacher)
    for output in keras.tree.flatten(expected):
        assert np.isfinite(output).all(), "the model's outputs are not finite"
        assert np.ptp(output, axis=0).any(), "the model's outputs are the same for all examples"
    difference = relative_difference(expected, outputs_of(builder.build(ActionSet())))
    report(difference=difference)
    assert difference <= COPY_TOLERANCE, f"outputs differ by {difference:.1e}"

    report(step="drawing a student")
    actions, foretold = random_student(graph, teacher)
    report(ratio=foretold / num_params, actions=actions.to_json())

    report(step="building the student")
    student = builder.build(actions)
    found = count_params(student)
    assert found == foretold, f"{found:,} parameters, foretold {foretold:,}"

    report(step="running the student")
    outputs = outputs_of(student)
    keras.tree.assert_same_structure(outputs, expected)
    for output, wanted in zip(*map(keras.tree.flatten, (outputs, expected)), strict=True):
        assert output.shape == wanted.shape, f"shape {output.shape}, not {wanted.shape}"
        assert np.isfinite(output).all(), "outputs are not finite"

    report(step="training the student")
    measure_statistics(student, inputs)
    # Gradients of a thousand layers with random weights may be of any size.
    student.compile(keras.optimizers.SGD(1e-6, clipnorm=1.0), "mse", run_eagerly=True)
    targets = keras.tree.map_structure(np.zeros_like, outputs)
    loss = float(student.train_on_batch(inputs, targets, return_dict=True)["loss"])
    assert np.isfinite(loss), f"the loss is {loss}"
    outputs = outputs_of(student)
    for output in keras.tree.flatten(outputs):
        assert np.isfinite(output).all(), "outputs are not finite after a step"

    report(step="saving and loading")
    path = os.path.join(folder, "student.keras")
    student.save(path)
    loaded = keras.saving.load_model(path, compile=False)
    difference = relative_difference(outputs, outputs_of(loaded))
    assert difference <= COPY_TOLERANCE, f"outputs differ by {difference:.1e}"

    report(step="exporting")
    exported = exporters.get("saved_model").export(student, pathlib.Path(folder) / "student")
    served = tf.saved_model.load(str(exported))
    tensors = keras.tree.flatten(inputs)
    by_name = dict(zip([tensor.name for tensor in student.inputs], tensors, strict=True))
    difference = relative_difference(
        outputs, served.serve(by_name if len(tensors) > 1 else tensors[0])
    )
    report(export_difference=difference)
    assert difference <= EXPORT_TOLERANCE, f"outputs differ by {difference:.1e}"

    report(step="comparing sizes")
    assert foretold < num_params, "no student has fewer parameters"
    report(step="done")


def random_student(graph: Any, teacher: Any) -> tuple[Any, int]:
    """Of many random action sets the one that leaves about half of the parameters.

    Returns:
        The action set, and how many parameters it is foretold to leave. It is empty where
        nothing can be taken from the teacher.
    """
    import numpy as np

    from esnac_tf.architecture import ActionSet
    from esnac_tf.graph.cost import count_params
    from esnac_tf.graph.widths import ParameterTable
    from esnac_tf.search_space.space import SearchSpace

    num_params = count_params(teacher)
    drawn = (ActionSet(), num_params)
    if not graph.width_groups and not graph.removals:
        return drawn
    table = ParameterTable(graph, teacher)
    for max_shrinkage in (1.0, 0.5, 0.25):
        space = SearchSpace(graph, max_shrinkage)
        candidates = space.sample(NUM_CANDIDATES, np.random.default_rng(0))
        counts = table.count(candidates.removed, candidates.widths)
        best = int(np.argmin(abs(counts / num_params - 0.5)))
        if abs(counts[best] / num_params - 0.5) <= abs(drawn[1] / num_params - 0.5):
            drawn = (space.to_actions(candidates)[best], int(counts[best]))
    return drawn


def relative_difference(expected: Any, received: Any) -> float:
    """The largest difference as a share of its output's largest value, of all outputs."""
    import keras
    import numpy as np

    def difference(wanted: Any, given: Any) -> float:
        largest = max(float(np.abs(wanted).max()), 1e-30)
        return float(np.abs(wanted - np.asarray(given)).max() / largest)

    pairs = zip(keras.tree.flatten(expected), keras.tree.flatten(received), strict=True)
    return max(difference(wanted, given) for wanted, given in pairs)
