import pytest
import tensorflow as tf

from esnac_tf.distillation import DISTRIBUTE, get_strategy
from esnac_tf.distillation.devices import share_out
from esnac_tf.errors import UnknownNameError


def test_none_is_the_default_strategy():
    assert get_strategy("none") is tf.distribute.get_strategy()


@pytest.mark.parametrize("name", ["mirrored", "grouped"])
def test_one_device_needs_no_strategy(name):
    if len(tf.config.list_logical_devices()) > 1:
        pytest.skip("There are several devices.")
    assert get_strategy(name) is tf.distribute.get_strategy()


@pytest.mark.parametrize("name", DISTRIBUTE)
def test_every_name_gives_a_strategy(name):
    assert isinstance(get_strategy(name), tf.distribute.Strategy)


def test_one_replica_iterates_without_tuning_and_other_options_stay():
    dataset, options = tf.data.Dataset.range(3), tf.data.Options()
    policy = tf.data.experimental.AutoShardPolicy.DATA
    options.experimental_distribute.auto_shard_policy = policy
    shared = share_out(dataset.with_options(options), get_strategy("none"))
    assert shared.options().autotune.enabled is False
    assert shared.options().experimental_distribute.auto_shard_policy == policy
    assert [int(value) for value in shared] == [0, 1, 2]


def test_unknown():
    with pytest.raises(UnknownNameError, match="Did you mean 'mirrored'"):
        get_strategy("mirored")
