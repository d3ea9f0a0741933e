"""What each layer of a model costs."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np

from esnac_tf.architecture import Shape
from esnac_tf.graph.cost import call_multiply_adds, layer_parameters
from esnac_tf.graph.parsing import read


@dataclasses.dataclass(frozen=True)
class LayerCost:
    """What one layer costs.

    Attributes:
        name: The layer's name.
        class_name: Name of its class, such as "Conv2D".
        output_shape: Shape of what it gives (of its first call's first output), batch axis first.
        num_params: Learned weights; weights that another layer holds, too, count at the first.
        multiply_adds: For one example, over all of its calls.
    """

    name: str
    class_name: str
    output_shape: Shape
    num_params: int
    multiply_adds: int


@dataclasses.dataclass(frozen=True)
class LayerCosts:
    """What the layers of a model cost, in the order in which they run; prints as a table.

    Attributes:
        layers: One value a layer; inputs are left out.
    """

    layers: tuple[LayerCost, ...]

    @property
    def num_params(self) -> int:
        """Learned weights of the model, as `esnac_tf.graph.cost.count_params` counts them."""
        return sum(layer.num_params for layer in self.layers)

    @property
    def multiply_adds(self) -> int:
        """Of one example, as `esnac_tf.graph.cost.count_flops` counts them."""
        return sum(layer.multiply_adds for layer in self.layers)

    def __str__(self) -> str:
        rows = [("Layer", "Class", "Output shape", "Parameters", "Multiply-adds")]
        for layer in self.layers:
            shape = " x ".join(str(length or "?") for length in layer.output_shape[1:])
            numbers = f"{layer.num_params:,}", f"{layer.multiply_adds:,}"
            rows.append((layer.name, layer.class_name, shape, *numbers))
        rows.append(("total", "", "", f"{self.num_params:,}", f"{self.multiply_adds:,}"))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = []
        for row in rows:
            cells = [
                cell.ljust(width) if column < 3 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            lines.append("  ".join(cells))
        return "\n".join(lines)


def layer_costs(model: keras.Model) -> LayerCosts:
    """Parameters and multiply-adds of each layer.

    They are counted as in `esnac_tf.graph.cost`: moving statistics are no parameters, and
    elementwise and unknown layers do not multiply. Layers of nested models have their own rows.

    Args:
        model: A functional or built Sequential model.

    Returns:
        The costs in the order in which the layers run.

    Raises:
        UserError: The model has no graph.

    Example:
        >>> inputs = keras.Input((4,))
        >>> hidden = keras.layers.Dense(8, activation="relu", name="hidden")(inputs)
        >>> print(layer_costs(keras.Model(inputs, keras.layers.Dense(2, name="top")(hidden))))
        Layer   Class  Output shape  Parameters  Multiply-adds
        hidden  Dense  8                     40             32
        top     Dense  2                     18             16
        total                                58             48
    """
    architecture, layers = read(model)
    counted: set[int] = set()
    costs: dict[str, LayerCost] = {}
    for call in architecture.calls:
        if not call.inputs:
            continue
        config = architecture.layer_of(call)
        shape = architecture.shapes[architecture.outputs_of(call)[0]]
        if call.layer not in costs:
            parameters = layer_parameters(layers[call.layer], config)
            weights = {id(weight): weight for weight in parameters if id(weight) not in counted}
            counted.update(weights)
            num_params = sum(int(np.prod(weight.shape)) for weight in weights.values())
            costs[call.layer] = LayerCost(call.layer, config.class_name, shape, num_params, 0)
        cost = costs[call.layer]
        multiply_adds = cost.multiply_adds + call_multiply_adds(architecture, call)
        costs[call.layer] = dataclasses.replace(cost, multiply_adds=multiply_adds)
    return LayerCosts(tuple(costs.values()))
