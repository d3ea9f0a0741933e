"""Students of at most so many parameters."""

from __future__ import annotations

import numpy as np
import pytest

from esnac_tf.errors import UserError
from esnac_tf.graph.cost import count_params
from esnac_tf.graph.teacher import analyse
from esnac_tf.graph.widths import ParameterTable
from esnac_tf.search_space.budget import ParameterBudget
from esnac_tf.search_space.space import SearchSpace
from esnac_tf.student import StudentBuilder
from tests import small_models


def space_of(name: str, share: float, mode: str = "dependency", **settings) -> tuple:
    """A model, its graph, its space with a budget of a share of its parameters, and the budget."""
    model = small_models.model(name)
    graph = analyse(model, mode)
    budget = ParameterBudget(ParameterTable(graph, model), int(share * count_params(model)))
    return model, graph, SearchSpace(graph, budget=budget, **settings), budget


@pytest.mark.parametrize("name", ["residual", "concatenated", "squeeze_excite"])
@pytest.mark.parametrize("mode", ["width", "dependency"])
def test_all_students_are_within_the_budget(name, mode):
    _, _, space, budget = space_of(name, 0.3, mode)
    generator = np.random.default_rng(0)
    candidates = space.sample(300, generator)
    for _ in range(3):
        assert budget.fits(candidates).all()
        assert np.array_equal(space.settle(candidates).codes(), candidates.codes())
        candidates = space.mutate(candidates, generator)


def test_students_that_are_built_have_no_more_parameters():
    model, graph, space, budget = space_of("residual", 0.25)
    builder = StudentBuilder(model, graph)
    for actions in space.to_actions(space.sample(5, np.random.default_rng(0))):
        assert count_params(builder.build(actions)) <= budget.max_params


def test_the_budget_is_used():
    """Where nothing is removed, narrowing stops near the budget."""
    _, _, space, budget = space_of("residual", 0.5, max_shrinkage=0.9, removal_probabilities=(0.0,))
    model = small_models.model("residual")
    table = ParameterTable(space.graph, model)
    sample = space.sample(200, np.random.default_rng(0))
    counts = table.count(sample.removed, sample.widths)
    assert not sample.removed.any()
    whole = SearchSpace(space.graph, 0.9, removal_probabilities=(0.0,))
    drawn = whole.sample(200, np.random.default_rng(0))
    too_large = ~budget.fits(drawn)
    assert too_large.any()
    assert np.median(counts[too_large]) > 0.7 * budget.max_params


def test_layers_go_where_narrowing_does_not_do():
    _, _, space, budget = space_of(
        "residual", 0.55, max_shrinkage=0.01, removal_probabilities=(0.0,)
    )
    sample = space.sample(50, np.random.default_rng(0))
    assert budget.fits(sample).all()
    assert sample.removed.any(axis=1).all()
    assert len(np.unique(sample.removed, axis=0)) > 1


def test_layers_go_only_from_what_is_too_large_however_narrow(monkeypatch):
    counts = []
    largest = ParameterBudget.largest

    def counted(budget, count, candidates):
        counts.append(count)
        return largest(budget, count, candidates)

    _, _, space, _ = space_of("residual", 0.5)
    monkeypatch.setattr(ParameterBudget, "largest", counted)
    space.sample(50, np.random.default_rng(0))
    narrowed, thinned = counts
    assert narrowed > thinned == 0


def test_what_fits_is_left_as_it_is():
    _, graph, space, _ = space_of("residual", 1.0)
    sample = space.sample(50, np.random.default_rng(0))
    unbounded = SearchSpace(graph).sample(50, np.random.default_rng(0))
    assert np.array_equal(sample.codes(), unbounded.codes())


def test_a_budget_that_nothing_meets():
    model = small_models.model("residual")
    graph = analyse(model)
    table = ParameterTable(graph, model)
    with pytest.raises(
        UserError, match=r"max_params=1 is too few: .* has (\d+) parameters"
    ) as error:
        SearchSpace(graph, budget=ParameterBudget(table, 1))
    least = int(str(error.value).split(" has ")[1].split(" ")[0])
    SearchSpace(graph, budget=ParameterBudget(table, least))
    with pytest.raises(UserError, match="too few"):
        SearchSpace(graph, budget=ParameterBudget(table, least - 1))


def test_removal_probabilities():
    graph = analyse(small_models.model("residual"))
    for rate in (0.0, 0.1, 1.0):
        space = SearchSpace(graph, removal_probabilities=(rate,))
        sample = space.sample(500, np.random.default_rng(0))
        share = sample.removed[:, sorted(graph.removals)].mean()
        assert share == pytest.approx(rate, abs=0.02)
