"""The surrogate: what the search believes about architectures it has not tried.

An architecture is a sequence of layer features. An embedding (a stack of bidirectional LSTMs)
turns it into a point on the unit sphere, a kernel measures likeness between points, and a Gaussian
process predicts the objective of an untried architecture from those already tried. K such kernels
are trained side by side, each on its own random half of the trials [1].

| file | holds |
|---|---|
| `config` | `SurrogateConfig`, importable without TensorFlow |
| `embedding` | `SequenceEmbedding`: K embeddings |
| `kernel` | `ArchitectureKernel`: a TFP kernel on sequences |
| `gaussian_process` | leave-one-out likelihood and posterior |
| `adam` | Adam as a function |
| `observations` | checks observations and candidates, draws subsets; `SurrogateError` |
| `fit_report` | `FitReport`: how a fit went |
| `parallel` | a kernel on each core |
| `surrogate` | `Surrogate`: fit, condition, predict |

This room knows arrays only: no trials, no search space, no Keras model. TensorFlow is imported
when a name other than `SurrogateConfig` is first used.

Sources:
    [1] Cao, Wang, Kitani. Learnable Embedding Space for Efficient Neural Architecture
        Compression. ICLR 2019. arXiv 1902.00383.

Example:
    >>> from esnac_tf.surrogate import SurrogateConfig
    >>> SurrogateConfig(num_kernels=2).num_kernels
    2
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from esnac_tf.surrogate.config import SurrogateConfig

if TYPE_CHECKING:
    from esnac_tf.surrogate.embedding import SequenceEmbedding
    from esnac_tf.surrogate.fit_report import FitReport
    from esnac_tf.surrogate.kernel import ArchitectureKernel
    from esnac_tf.surrogate.observations import SurrogateError
    from esnac_tf.surrogate.surrogate import Surrogate

__all__ = [
    "ArchitectureKernel",
    "FitReport",
    "SequenceEmbedding",
    "Surrogate",
    "SurrogateConfig",
    "SurrogateError",
]

_HOMES = {
    "ArchitectureKernel": "kernel",
    "FitReport": "fit_report",
    "SequenceEmbedding": "embedding",
    "Surrogate": "surrogate",
    "SurrogateError": "observations",
}


def __getattr__(name: str) -> Any:
    """Imports what needs TensorFlow on first use (PEP 562)."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
