"""Packaging of esnac_tf: dependencies, extras and the supported Python."""

import pathlib
import re

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).resolve().parent
VERSION = re.search(
    r'^__version__ = "([^"]+)"', (ROOT / "esnac_tf" / "__init__.py").read_text(), re.MULTILINE
).group(1)

QUICKSTART = ["scikit-learn>=1.5"]
TENSORBOARD = ["tensorboard>=2.20"]
LITERT = ["ai-edge-litert>=2.0"]
RAY = ["ray>=2.40"]
KERAS_HUB = ["keras-hub>=0.32"]
# Formatting and types are judged differently by every release of ruff and mypy.
TEST = [
    *QUICKSTART,
    *TENSORBOARD,
    *LITERT,
    *RAY,
    "hypothesis>=6.100",
    "import-linter>=2.0",
    "mypy>=2.4,<2.5",
    "pillow>=10",
    "pytest>=8",
    "pytest-xdist>=3.5",
    "ruff>=0.17,<0.18",
]

setup(
    name="esnac-tf",
    version=VERSION,
    description="Makes trained Keras models small by searching for a smaller architecture.",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["esnac_tf", "esnac_tf.*"]),
    package_data={"esnac_tf": ["py.typed"]},
    install_requires=[
        "tensorflow>=2.21,<2.22",
        "keras>=3.15.1,<3.16; python_version >= '3.11'",
        # The newest that Python 3.10 can have.
        "keras>=3.12.4,<3.13; python_version < '3.11'",
        "tensorflow-probability[tf]>=0.25,<0.26",
        "numpy>=1.26",
        "absl-py>=2.1",
        "rich>=13",
    ],
    extras_require={
        "quickstart": QUICKSTART,
        "test": TEST,
        "tensorboard": TENSORBOARD,
        "litert": LITERT,
        "keras-hub": KERAS_HUB,
        "ray": RAY,
    },
)
