import pytest
import tensorflow as tf

from esnac_tf.distillation import DISTRIBUTE, get_strategy
from esnac_tf.errors import UnknownNameError


def test_none_is_the_default_strategy():
    assert get_strategy("none") is tf.distribute.get_strategy()


def test_mirrored_works_on_one_cpu():
    assert get_strategy("mirrored").num_replicas_in_sync >= 1


@pytest.mark.parametrize("name", DISTRIBUTE)
def test_every_name_gives_a_strategy(name):
    assert isinstance(get_strategy(name), tf.distribute.Strategy)


def test_unknown():
    with pytest.raises(UnknownNameError, match="Did you mean 'mirrored'"):
        get_strategy("mirored")
