import keras
import pytest

from esnac_tf.distillation.mixed_precision import computes_in_float16, float16_compute


def nested_model():
    inner = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3, name="inner")])
    end = keras.layers.Dense(2, activation="softmax", name="end")
    return keras.Sequential([keras.Input((3,)), inner, end])


def test_layers_of_nested_models_compute_in_float16_but_not_a_softmax():
    model = nested_model()
    inner, end = model.layers[0].layers[0], model.layers[1]
    assert not computes_in_float16(model)
    with float16_compute([model]):
        assert computes_in_float16(model)
        assert inner.compute_dtype == "float16"
        assert inner.kernel.dtype == "float32"
        assert end.compute_dtype == "float32"
    assert inner.compute_dtype == "float32"


def test_policies_come_back_after_an_error():
    model = nested_model()
    with pytest.raises(KeyError), float16_compute([model]):
        raise KeyError
    assert not computes_in_float16(model)


def test_another_policy_is_kept():
    layer = keras.layers.Dense(2, dtype="mixed_bfloat16")
    model = keras.Sequential([keras.Input((3,)), layer])
    with float16_compute([model]):
        assert layer.compute_dtype == "bfloat16"
