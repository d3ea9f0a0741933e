"""The devices that training runs on, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from esnac_tf.errors import UnknownNameError

if TYPE_CHECKING:
    import tensorflow as tf

DISTRIBUTE = ("auto", "none", "mirrored", "grouped")


def get_strategy(name: str = "auto") -> tf.distribute.Strategy:
    """Returns the distribution strategy of that name.

    Models that are trained or evaluated with it must be built within its `scope()`.

    Args:
        name: "none": one device, TensorFlow's default. "mirrored": every GPU of this machine,
            or every logical CPU device if there is no GPU. "auto": "mirrored" if there is
            more than one GPU, else "none". "grouped": as "mirrored"; the students of a search
            step are shared out among the devices, each trained on one (`one_device_strategies`).

    Returns:
        The strategy.

    Raises:
        UnknownNameError: If the name is none of these.

    Example:
        >>> get_strategy("none").num_replicas_in_sync
        1
    """
    if name not in DISTRIBUTE:
        raise UnknownNameError(
            "device strategy", name, DISTRIBUTE, "esnac_tf/distillation/devices.py"
        )
    import tensorflow as tf  # Takes seconds; the names are needed at once.

    if name == "none" or (name == "auto" and num_gpus() < 2):
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy(_devices())


def one_device_strategies() -> list[tf.distribute.Strategy]:
    """A strategy for each GPU of this machine, or for each logical CPU device if there is none.

    Example:
        >>> {strategy.num_replicas_in_sync for strategy in one_device_strategies()}
        {1}
    """
    import tensorflow as tf

    return [tf.distribute.OneDeviceStrategy(device) for device in _devices()]


def num_gpus() -> int:
    """How many GPUs TensorFlow uses here."""
    import tensorflow as tf

    return len(tf.config.list_logical_devices("GPU"))


def _devices() -> list[str]:
    import tensorflow as tf

    gpus = tf.config.list_logical_devices("GPU")
    return [device.name for device in gpus or tf.config.list_logical_devices("CPU")]
