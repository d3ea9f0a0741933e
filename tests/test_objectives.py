"""One contract for all objectives, and hand-computed values."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import pytest

from esnac_tf import objectives
from esnac_tf.errors import UnknownNameError
from esnac_tf.objectives import Measurement

measurements = st.builds(
    Measurement, st.integers(1, 10**8), st.integers(1, 10**11), st.floats(0.01, 1)
)
FEW = hypothesis.settings(max_examples=30, deadline=None, derandomize=True)


@pytest.mark.parametrize("name", objectives.names())
def test_the_teacher_itself_is_worth_nothing(name):
    teacher = Measurement(1000, 5000, 0.9)
    assert objectives.get(name)(teacher, teacher) == 0


@pytest.mark.parametrize("name", objectives.names())
@FEW
@hypothesis.given(teacher=measurements, student=measurements, accuracy=st.floats(0.01, 1))
def test_more_accuracy_is_worth_more_at_the_same_cost(name, teacher, student, accuracy):
    objective = objectives.get(name)
    better = Measurement(student.num_params, student.flops, accuracy)
    smaller = min(student.num_params, student.flops) < min(teacher.num_params, teacher.flops) and (
        student.num_params < teacher.num_params and student.flops < teacher.flops
    )
    if smaller and accuracy > student.quality:
        assert objective(better, teacher) > objective(student, teacher)


@pytest.mark.parametrize("name", objectives.names())
@FEW
@hypothesis.given(share=st.floats(0.01, 0.99))
def test_less_cost_is_worth_more_at_the_same_accuracy(name, share):
    teacher = Measurement(10**6, 10**9, 0.9)
    larger = Measurement(int(10**6 * share), int(10**9 * share), 0.8)
    smaller = Measurement(larger.num_params // 2, larger.flops // 2, 0.8)
    objective = objectives.get(name)
    assert objective(smaller, teacher) > objective(larger, teacher)


def test_the_papers_figures():
    """f of the published students of VGG-19 and ResNet-34, from C and accuracies."""
    for compression, student, teacher, f in [
        (0.8470, 0.7164, 0.7371, 0.9492),
        (0.8664, 0.7547, 0.7871, 0.9417),
    ]:
        value = objectives.params(
            Measurement(round((1 - compression) * 10**6), 0, student),
            Measurement(10**6, 0, teacher),
        )
        assert value == pytest.approx(f, abs=2e-4)


def test_the_name_chooses_the_cost():
    teacher = Measurement(100, 100, 1.0)
    student = Measurement(50, 25, 1.0)
    assert objectives.get("params")(student, teacher) == pytest.approx(0.75)
    assert objectives.get("flops")(student, teacher) == pytest.approx(0.9375)


@pytest.mark.parametrize("name", ["parms", "names", "get", "Measurement", "_reward", ""])
def test_names_that_are_no_objective(name):
    with pytest.raises(UnknownNameError, match=r"esnac_tf/objectives\.py"):
        objectives.get(name)
