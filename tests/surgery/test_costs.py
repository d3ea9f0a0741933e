"""What layers cost: the parts make up the whole."""

from __future__ import annotations

import keras
import pytest
import small_models
from small_models import MODELS, TEACHERS

from esnac_tf import surgery
from esnac_tf.errors import UserError
from esnac_tf.graph.cost import count_flops, count_params


@pytest.mark.parametrize("name", [*MODELS, *TEACHERS])
def test_totals_are_the_models(name):
    model = small_models.model(name)
    costs = surgery.layer_costs(model)
    assert costs.num_params == count_params(model)
    assert costs.multiply_adds == count_flops(model)


def test_layers_in_the_order_in_which_they_run():
    costs = surgery.layer_costs(small_models.model("residual")).layers
    names = [cost.name for cost in costs]
    assert names[0] == "stem"
    assert names[-2:] == ["pool", "top"]
    assert names.index("conv1") < names.index("add1") < names.index("conv2")
    stem, norm = costs[0], costs[names.index("bn1")]
    assert (stem.class_name, stem.output_shape) == ("Conv2D", (None, 8, 8, 6))
    assert (stem.num_params, stem.multiply_adds) == (9 * 3 * 6 + 6, 64 * 9 * 3 * 6)
    assert (norm.num_params, norm.multiply_adds) == (12, 0)


def test_a_shared_layer_has_one_row():
    costs = {cost.name: cost for cost in surgery.layer_costs(MODELS["shared_layer"]()).layers}
    assert costs["shared"].num_params == 9 * 6 * 6 + 6
    assert costs["shared"].multiply_adds == 2 * 64 * 9 * 6 * 6


def test_prints_as_a_table():
    costs = surgery.layer_costs(small_models.model("residual"))
    first, *_, last = str(costs).splitlines()
    assert first.split()[0] == "Layer"
    assert last.split() == ["total", f"{costs.num_params:,}", f"{costs.multiply_adds:,}"]
    sequence = keras.Sequential([keras.Input((None, 4)), keras.layers.Conv1D(2, 1, name="conv")])
    assert "? x 2" in str(surgery.layer_costs(sequence))


def test_a_model_without_a_graph_is_refused():
    with pytest.raises(UserError, match="not functional"):
        surgery.layer_costs(small_models.SubclassedPart())
