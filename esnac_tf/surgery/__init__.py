"""Surgery without a search: changes to a model by people who know what they want.

Every function takes a functional or Sequential Keras model, trained or not, and leaves it as it
is. Those that change something return a new functional model with its weights: of the same
name, inputs, outputs and layer names, and compiled in the same way. docs/surgery.md is the guide.

    remove_layer, remove_layers     layers become the identity
    set_width                       a layer gets fewer filters or units
    remove_channels                 chosen output channels of a layer go
    add_skip_connection             a tensor is added further on
    apply                           an `esnac_tf.architecture.ActionSet`, such as a search found

    removable_layers                which layers can be removed
    skip_connections                which skip connections can be added
    channel_groups                  which channels have to go together
    layer_costs                     parameters and multiply-adds of each layer

Example:
    >>> import keras
    >>> layers = keras.layers
    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 3)),
    ...     layers.Conv2D(16, 3, name="conv"),
    ...     layers.BatchNormalization(name="norm"),
    ...     layers.GlobalAveragePooling2D(name="pool"),
    ...     layers.Dense(2, name="top"),
    ... ])
    >>> smaller = set_width(remove_layer(model, "norm"), "conv", 4)
    >>> [layer.name for layer in smaller.layers[1:]], smaller.get_layer("conv").filters
    (['conv', 'pool', 'top'], 4)
"""

from __future__ import annotations

from esnac_tf.surgery.costs import LayerCost, LayerCosts, layer_costs
from esnac_tf.surgery.editing import add_skip_connection, apply, remove_layer, remove_layers
from esnac_tf.surgery.groups import ChannelGroup, channel_groups
from esnac_tf.surgery.places import removable_layers, skip_connections
from esnac_tf.surgery.widths import remove_channels, set_width

__all__ = [
    "ChannelGroup",
    "LayerCost",
    "LayerCosts",
    "add_skip_connection",
    "apply",
    "channel_groups",
    "layer_costs",
    "removable_layers",
    "remove_channels",
    "remove_layer",
    "remove_layers",
    "set_width",
    "skip_connections",
]
