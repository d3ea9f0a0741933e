"""The devices that training runs on, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from esnac_tf.errors import UnknownNameError

if TYPE_CHECKING:
    import tensorflow as tf

DISTRIBUTE = ("auto", "none", "mirrored")


def get_strategy(name: str = "auto") -> tf.distribute.Strategy:
    """Returns the distribution strategy of that name.

    Models that are trained or evaluated with it must be built within its `scope()`.

    Args:
        name: "none": one device, TensorFlow's default. "mirrored": every GPU of this machine,
            or every logical CPU device if there is no GPU. "auto": "mirrored" if there is
            more than one GPU, else "none".

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

    gpus = tf.config.list_logical_devices("GPU")
    if name == "none" or (name == "auto" and len(gpus) < 2):
        return tf.distribute.get_strategy()
    devices = gpus or tf.config.list_logical_devices("CPU")
    return tf.distribute.MirroredStrategy([device.name for device in devices])
