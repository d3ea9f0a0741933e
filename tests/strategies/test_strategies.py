"""The contract of strategies: every file in esnac_tf/strategies/ passes it."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
import toy

from esnac_tf import strategies
from esnac_tf.architecture import ActionSet
from esnac_tf.errors import UnknownNameError
from esnac_tf.graph.surgery import check_actions
from esnac_tf.graph.teacher import analyse
from esnac_tf.search_space.candidates import Candidates
from esnac_tf.search_space.space import SearchSpace
from esnac_tf.strategies import StrategyContext, esnac, evolution
from esnac_tf.strategies.history import History
from esnac_tf.surrogate import SurrogateConfig, SurrogateError
from esnac_tf.trial import COMPLETE, FAILED, Trial

TINY = SurrogateConfig(num_kernels=2, num_layers=1, hidden_size=4, max_steps=2)


@pytest.fixture(scope="module")
def space():
    return SearchSpace(analyse(toy.untrained()))


@pytest.fixture(scope="module")
def small_space():
    """Eight students can be drawn: widths 1 and 2, a layer that may go, a skip connection."""
    inputs = keras.Input((4,))
    x = keras.layers.ReLU(name="relu")(keras.layers.Dense(3, name="hidden")(inputs))
    return SearchSpace(analyse(keras.Model(inputs, keras.layers.Dense(2, name="top")(x))))


def make(name, space, seed=0, **changes):
    context = {"num_candidates": 20, "surrogate": TINY, **changes}
    return strategies.create(name, StrategyContext(space, seed, **context))


def planted(actions):
    """An objective without any training: small widths are good, skips are bad."""
    return 0.5 + 0.1 * len(actions.removed) - sum(width for _, width in actions.widths) / 100


def finish(proposals, start=0, objective=planted, failing=()):
    """Trials of proposals, as an evaluation would give them."""
    trials = []
    for number, actions in enumerate(proposals, start):
        if number in failing:
            trial = Trial(number, FAILED, actions, None, None, None, None, 1.0, failure="broken")
        else:
            trial = Trial(number, COMPLETE, actions, 10, 20, 0.5, objective(actions), 1.0)
        trials.append(trial)
    return trials


def search(strategy, counts, objective=planted, failing=()):
    """All trials of some steps."""
    trials = []
    for count in counts:
        new = finish(strategy.suggest(count), len(trials), objective, failing)
        strategy.update(new)
        trials += new
    return trials


def test_the_names_are_those_of_the_files():
    assert strategies.names() == ["esnac", "evolution", "random"]
    with pytest.raises(UnknownNameError, match="Did you mean 'evolution'"):
        strategies.create("evolutoin", None)


@pytest.mark.parametrize("name", strategies.names())
class TestContract:
    def test_proposals_are_new_different_settled_and_allowed(self, name, space):
        counts = (3, 1, 5, 4)  # more and fewer than there are kernels
        trials = search(make(name, space), counts, failing=(1, 4))
        actions = [trial.actions for trial in trials]
        assert len(actions) == sum(counts)
        assert len({*actions, ActionSet()}) == len(actions) + 1
        for action in actions:
            check_actions(space.graph, action)
        candidates = space.from_actions(actions)
        assert list(space.settle(candidates).keys()) == list(candidates.keys())
        assert space.to_actions(candidates) == actions

    def test_the_seed_and_the_trials_decide(self, name, space):
        counts = (3, 2, 2)
        strategy = make(name, space, seed=1)
        first = search(strategy, counts, failing=(2,))
        assert strategy.suggest(2) == strategy.suggest(2)
        assert search(make(name, space, seed=2), (3,)) != first[:3]
        resumed = make(name, space, seed=1)
        resumed.update(first[:3])
        resumed.update(first[3:5])
        assert resumed.suggest(2) == [trial.actions for trial in first[5:]]

    def test_what_is_still_evaluated_is_not_proposed_again(self, name, space):
        strategy = make(name, space)
        known = search(strategy, (3,))
        pending: list[ActionSet] = []
        for _ in range(4):
            [proposal] = strategy.suggest(1, pending)
            assert proposal not in [*pending, *(trial.actions for trial in known)]
            pending.append(proposal)
        # What is asked for again comes again, whatever was asked for in between.
        assert strategy.suggest(1, pending[:2]) == [pending[2]]
        assert strategy.suggest(1) == [pending[0]]

    def test_nothing_is_left_where_the_rest_is_pending(self, name, small_space):
        strategy = make(name, small_space)
        trials = search(strategy, (4,))
        pending = strategy.suggest(4)
        assert len(trials) + len(pending) == 8
        assert strategy.suggest(1, pending) == []

    def test_failed_trials_alone_teach_only_what_not_to_try(self, name, space):
        trials = search(make(name, space), (3, 3), failing=range(6))
        assert len({trial.actions for trial in trials}) == 6

    def test_equal_objectives_are_no_problem(self, name, space):
        trials = search(make(name, space), (4, 4), objective=lambda actions: 0.5)
        assert len({trial.actions for trial in trials}) == 8

    def test_an_exhausted_space_gives_fewer_then_none(self, name, small_space):
        strategy = make(name, small_space)
        trials = search(strategy, (5, 5))
        assert len(trials) == 8
        assert len({trial.actions for trial in trials}) == 8
        assert strategy.suggest(2) == []


class TestEvolution:
    def test_mutants_of_good_students_come_after_the_first_tournament(self, space):
        strategy = make("evolution", space)
        trials = search(strategy, (evolution.TOURNAMENT_SIZE,))
        assert len(trials) == evolution.TOURNAMENT_SIZE
        parents = space.from_actions([trial.actions for trial in trials])
        for child in strategy.suggest(5):
            candidate = space.from_actions([child])
            distances = [
                int((parents.removed[row] != candidate.removed[0]).sum())
                + int((parents.skips[row] != candidate.skips[0]).sum())
                for row in range(len(parents))
            ]
            # A flipped removal may take skip connections to that layer with it.
            assert min(distances) <= 2

    def test_it_is_better_than_random_search(self, space):
        def mean(name):
            trials = search(make(name, space, seed=5), (10, 10, 10, 10))
            return np.mean([trial.objective for trial in trials[20:]])

        assert mean("evolution") > mean("random")


class FakeSurrogate:
    """Expects of a student what its features sum to; each kernel its own sign."""

    def __init__(self, num_features, config, columns):
        self.config = config
        self.best_observations = np.zeros(config.num_kernels)
        self.fitted, self.believed, self.kernels = [], [], []

    def believe(self, encodings):
        self.believed.append(len(encodings))

    def fit(self, encodings, observations, seed, warm_start, kernels):
        self.fitted.append((encodings, observations, seed, warm_start))
        self.kernels.append(list(kernels))

    def predict(self, encodings):
        signs = np.array([[1.0], [-1.0]])[self.kernels[-1]]
        return np.asarray(encodings).sum(axis=(2, 3)) * signs


class TestEsnac:
    @pytest.fixture
    def fake(self, monkeypatch, space):
        """A strategy that knows two trials, and what it draws."""
        monkeypatch.setattr(esnac, "Surrogate", FakeSurrogate)
        monkeypatch.setattr(esnac, "CHUNK_SIZE", 7)
        strategy = make("esnac", space)
        strategy._acquisition = lambda predictive, best: predictive
        search(strategy, (2,))
        drawn = []
        sample = space.sample

        def recorded(count, generator):
            drawn.append(sample(count, generator))
            return drawn[-1]

        monkeypatch.setattr(space, "sample", recorded)
        return strategy, drawn

    def test_each_kernel_proposes_the_best_of_its_own_pool(self, fake, space):
        strategy, drawn = fake
        proposals = strategy.suggest(2)
        assert [len(pool) for pool in drawn] == [20, 20]
        for proposal, pool, sign in zip(proposals, drawn, (1, -1), strict=True):
            scores = sign * strategy._encode(pool).sum(axis=(1, 2))
            own = sign * strategy._encode(space.from_actions([proposal])).sum()
            assert own == scores.max()

    def test_kernels_take_turns_where_more_is_asked_for(self, fake, space):
        strategy, _ = fake
        proposals = strategy.suggest(5)
        for kernel, sign in enumerate((1, -1)):
            encoded = strategy._encode(space.from_actions(proposals[kernel::2]))
            scores = sign * encoded.sum(axis=(1, 2))
            assert np.all(np.diff(scores) <= 0)

    def test_kernels_go_on_taking_turns(self, fake, space):
        strategy, drawn = fake
        pending = []
        for number in range(4):
            [proposal] = strategy.suggest(1, pending)
            scores = strategy._encode(drawn[-1]).sum(axis=(1, 2))
            own = strategy._encode(space.from_actions([proposal])).sum()
            is_new = np.isin(drawn[-1].codes(), space.from_actions(pending).codes(), invert=True)
            assert own == (scores[is_new].max() if number % 2 == 0 else scores[is_new].min())
            pending.append(proposal)
        assert strategy._surrogate.believed == [0, 1, 2, 3]
        assert strategy._surrogate.kernels == [[0], [1], [0], [1]]  # the one whose turn it is
        strategy.suggest(2, pending)
        strategy.suggest(2, pending)
        assert strategy._surrogate.kernels[4:] == [[0, 1]]  # nothing is new

    def test_what_another_kernel_proposed_is_skipped(self, fake):
        strategy, _ = fake
        pool = strategy._space.sample(3, np.random.default_rng(0))
        scores = [np.array([0.1, 0.9, 0.5])] * 2
        chosen = strategy._choose(2, [pool, pool], scores)
        assert list(chosen.keys()) == list(pool[np.array([1, 2])].keys())

    def test_the_teacher_is_observed_with_the_objective_0(self, fake):
        strategy, _ = fake
        strategy.suggest(1)
        [(encodings, observations, _, warm_start)] = strategy._surrogate.fitted
        assert not warm_start
        assert len(encodings) == len(observations) == 3
        assert observations[0] == 0

    def test_a_surrogate_that_fails_makes_a_random_step(self, fake, monkeypatch):
        strategy, _ = fake
        warnings = []
        monkeypatch.setattr(esnac.logging, "warning", lambda *args: warnings.append(args))

        def fail(*args, **kwargs):
            raise SurrogateError("not finite")

        monkeypatch.setattr(FakeSurrogate, "fit", fail)
        proposals = strategy.suggest(3)
        assert len(set(proposals)) == 3
        assert len(warnings) == 1
        assert "not finite" in str(warnings[0])

    @pytest.mark.parametrize("warm_steps", [0, 2])
    @pytest.mark.parametrize("counts", [(2, 2, 2), (1, 1, 1, 1, 1), (2, 1, 1, 2)])
    def test_a_resumed_search_fits_as_one_that_never_stopped(self, space, warm_steps, counts):
        """With the real surrogate; the second gets the trials of all steps at once."""
        config = SurrogateConfig(
            num_kernels=2, num_layers=1, hidden_size=4, max_steps=4, warm_steps=warm_steps
        )

        def new():
            return make("esnac", space, num_candidates=20, surrogate=config)

        def weights(strategy):
            return [v.numpy() for v in strategy._surrogate.embedding.all_weights]

        strategy, resumed = new(), new()
        trials = search(strategy, counts)
        for end, count in zip(np.cumsum(counts), counts, strict=True):
            resumed.update(trials[end - count : end])
        assert strategy.suggest(counts[-1]) == resumed.suggest(counts[-1])
        if not warm_steps and 1 in counts:
            return  # a kernel whose turn it is not is as it was left
        for actual, expected in zip(weights(resumed), weights(strategy), strict=True):
            np.testing.assert_array_equal(actual, expected)

    def test_kernels_go_on_from_step_to_step(self, fake):
        strategy, _ = fake
        config = SurrogateConfig(num_kernels=2, warm_steps=5)
        strategy._context = dataclasses.replace(strategy._context, surrogate=config)
        search(strategy, (2, 2))
        strategy.suggest(2)
        assert [fit[-1] for fit in strategy._surrogate.fitted] == [False, True, True]
        assert [len(fit[0]) for fit in strategy._surrogate.fitted] == [3, 5, 7]

    def test_after_a_failure_kernels_are_new(self, fake, monkeypatch):
        """Weights that are not finite would never become so again."""
        strategy, _ = fake
        config = SurrogateConfig(num_kernels=2, warm_steps=5)
        strategy._context = dataclasses.replace(strategy._context, surrogate=config)
        fit = FakeSurrogate.fit

        def second_fails(self, *args, **kwargs):
            fit(self, *args, **kwargs)
            if len(self.fitted) == 2:
                raise SurrogateError("not finite")

        monkeypatch.setattr(FakeSurrogate, "fit", second_fails)
        search(strategy, (2, 2, 2))
        strategy.suggest(2)
        assert [fit[-1] for fit in strategy._surrogate.fitted] == [False, True, False, True]


@pytest.mark.slow
class TestEsnacAgainstRandom:
    """The real surrogate, of a size that trains in seconds.

    Of students of a chain of layers the best are narrow and keep their layers. Measured over 10
    seeds: 0.26 better than random search on average, 0.12 in the worst. Untrained embeddings do
    about as well here: what is held is encoding, processes, acquisition and choice together. That
    training helps is held by tests/surrogate.
    """

    SEEDS, NUM_STEPS, NUM_KERNELS = range(4), 6, 4

    @pytest.fixture
    def chain(self):
        inputs = keras.Input((8,))
        x = keras.layers.Dense(12, name="stem")(inputs)
        for number in range(6):
            x = keras.layers.Dense(12, name=f"dense{number}")(x)
            x = keras.layers.ReLU(name=f"relu{number}")(x)
        outputs = keras.layers.Dense(3, name="top")(x)
        return SearchSpace(analyse(keras.Model(inputs, outputs), "dependency"))

    def second_half(self, name, space, seed):
        """The mean objective of the students proposed in the second half of a search."""
        full = {group.name: group.width for group in space.graph.width_groups}

        def objective(actions):
            narrow = 1 - sum({**full, **dict(actions.widths)}.values()) / sum(full.values())
            kept = 1 - len(actions.removed) / len(space.graph.removals)
            return narrow * (2 - narrow) * kept

        surrogate = SurrogateConfig(
            num_kernels=self.NUM_KERNELS,
            num_layers=1,
            hidden_size=8,
            max_steps=20,
            learning_rate=0.01,
        )
        strategy = make(name, space, seed, num_candidates=100, surrogate=surrogate)
        trials = search(strategy, [self.NUM_KERNELS] * self.NUM_STEPS, objective)
        return np.mean([trial.objective for trial in trials[len(trials) // 2 :]])

    def test_it_is_better_than_random_search(self, chain):
        gains = [
            self.second_half("esnac", chain, seed) - self.second_half("random", chain, seed)
            for seed in self.SEEDS
        ]
        assert np.mean(gains) > 0.1


class TestHistory:
    @pytest.mark.parametrize("seed", range(5))
    def test_new_candidates_are_those_of_a_loop_in_their_order(self, space, small_space, seed):
        for some in (space, small_space):
            generator = np.random.default_rng(seed)
            history = History(some, 0)
            pool = some.sample(60, generator)
            history.extend(finish(some.to_actions(pool[:10])))
            candidates = Candidates.concatenate(
                [some.sample(20, generator), pool, some.teacher(), pool]
            )[generator.permutation(141)]
            for also_tried in (None, pool[:0], pool[10:20]):
                seen = {*some.teacher().keys(), *pool[:10].keys()}
                seen |= set() if also_tried is None else set(also_tried.keys())
                expected = []
                for index, key in enumerate(candidates.keys()):
                    if key not in seen:
                        seen.add(key)
                        expected.append(index)
                received = history.new(candidates, also_tried)
                for part in ("removed", "widths", "skips"):
                    np.testing.assert_array_equal(
                        getattr(received, part), getattr(candidates, part)[expected]
                    )
        assert len(history.new(candidates[:0])) == 0

    def test_draws_begin_with_what_was_found(self, small_space):
        history = History(small_space, 0)
        generator = np.random.default_rng(0)
        found = small_space.from_actions([ActionSet.of(["relu"])])
        drawn = history.draw(99, lambda number: small_space.sample(number, generator), found)
        assert len(drawn) == 9
        assert len(set(drawn.keys())) == 9
        assert small_space.to_actions(drawn)[0] == ActionSet.of(["relu"])
