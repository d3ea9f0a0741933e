import keras
import numpy as np
import pytest
import tensorflow as tf

from esnac_tf.distillation import evaluate, get_strategy
from esnac_tf.distillation.evaluation import Evaluation, Score
from esnac_tf.errors import UserError

from .tiny import dense_net, pictures


def rows(x, y, weight, batch_size=8):
    return tf.data.Dataset.from_tensor_slices((x, y, weight)).batch(batch_size)


def test_equals_numpy_for_several_models_at_once():
    x, y = pictures(32)
    models = [dense_net(seed) for seed in range(3)]
    expected = [np.mean(np.argmax(model.predict(x, verbose=0), -1) == y) for model in models]
    accuracies = evaluate(models, rows(x, y, np.ones(32)))
    assert accuracies == pytest.approx(expected)
    assert len(set(accuracies)) > 1


def test_padded_rows_do_not_count():
    x, y = pictures(24)
    model = dense_net()
    [expected] = evaluate([model], rows(x, y, np.ones(24)))
    padded = np.concatenate([x, np.full((8, 4, 4, 3), 9.0, "float32")])
    for label in range(3):
        labels = np.concatenate([y, np.full(8, label)])
        weight = np.concatenate([np.ones(24), np.zeros(8)])
        assert evaluate([model], rows(padded, labels, weight)) == pytest.approx([expected])


def test_rows_without_weights_all_count():
    x, y = pictures(16)
    model = dense_net()
    plain = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    assert evaluate([model], plain) == evaluate([model], rows(x, y, np.ones(16)))


def test_outputs_that_are_not_finite_are_wrong():
    x, y = pictures(16)
    model = dense_net()
    model.set_weights([np.full_like(w, np.nan) for w in model.get_weights()])
    assert evaluate([model], rows(x, y, np.ones(16))) == [0.0]


def test_the_share_of_finite_rows_is_told():
    x, y = pictures(16)
    x[:4] = np.inf
    x[12:] = np.nan  # Rows that only fill a batch.
    weight = np.repeat([1.0, 0.0], [12, 4])
    models = [dense_net(), dense_net(1)]
    evaluation = Evaluation(models, rows(x, y, weight), get_strategy("none"))
    right = np.argmax(models[0].predict(x[4:12], verbose=0), -1) == y[4:12]
    score, skipped = evaluation([True, False])
    assert score == Score(pytest.approx(np.sum(right) / 12), pytest.approx(8 / 12))
    assert skipped == Score(0.0, 0.0)


def test_a_dict_of_one_output_is_read():
    i = keras.Input((4, 4, 3))
    model = keras.Model(i, {"logits": keras.layers.Dense(3)(keras.layers.Flatten()(i))})
    x, y = pictures(16)
    assert 0 <= evaluate([model], rows(x, y, np.ones(16)))[0] <= 1


def test_data_that_a_model_can_not_compute_is_told():
    i = keras.Input((4,), dtype="int32")
    flat = keras.layers.Flatten()(keras.layers.Embedding(50, 2)(i))
    model = keras.Model(i, keras.layers.Dense(3)(flat))
    data = rows(np.full((16, 4), 70), np.zeros(16, int), np.ones(16))
    with pytest.raises(UserError) as caught:
        evaluate([model], data)
    assert str(caught.value).startswith(
        "The model can't compute the data: indices[0,0] = 70 is not in [0, 50)\n"
    )


def test_no_rows():
    x, y = pictures(16)
    with pytest.raises(UserError, match="no rows"):
        evaluate([dense_net()], rows(x, y, np.zeros(16)))
    with pytest.raises(UserError, match="no rows"):
        evaluate([dense_net()], rows(x, y, np.ones(16)).take(0))


def test_a_model_with_two_outputs():
    i = keras.Input((4, 4, 3))
    flat = keras.layers.Flatten()(i)
    model = keras.Model(i, [keras.layers.Dense(3)(flat), keras.layers.Dense(2)(flat)])
    x, y = pictures(16)
    with pytest.raises(UserError, match="one output"):
        evaluate([model], rows(x, y, np.ones(16)))
