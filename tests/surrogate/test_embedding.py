"""SequenceEmbedding against a float64 NumPy LSTM and against Keras."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from esnac_tf.surrogate.embedding import SequenceEmbedding

K, N, T, F, H, LAYERS = 3, 5, 6, 12, 8, 2


@pytest.fixture(scope="module")
def embedding():
    embedding = SequenceEmbedding(K, F, num_layers=LAYERS, hidden_size=H, seed=1)
    generator = np.random.default_rng(2)
    for bias in embedding.biases:  # Zeros would hide an error.
        bias.assign_add(generator.normal(0, 0.3, bias.shape).astype(np.float32))
    return embedding


def random_sequences(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=(*shape, F)).astype(np.float32)


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def reference_lstm(inputs, kernel, recurrent_kernel, bias):
    """One direction over one sequence `[T, in]`."""
    h = c = np.zeros(recurrent_kernel.shape[0])
    outputs = []
    for row in inputs:
        i, f, g, o = np.split(row @ kernel + h @ recurrent_kernel + bias, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        outputs.append(h)
    return np.array(outputs)


def reference_embedding(embedding, k, sequence):
    """The embedding of one sequence by kernel k, in float64."""
    outputs = sequence.astype(np.float64)
    for weights in zip(
        embedding.kernels, embedding.recurrent_kernels, embedding.biases, strict=True
    ):
        kernel, recurrent_kernel, bias = (w.numpy()[k].astype(np.float64) for w in weights)
        forward = reference_lstm(outputs, kernel[0], recurrent_kernel[0], bias[0])
        backward = reference_lstm(outputs[::-1], kernel[1], recurrent_kernel[1], bias[1])[::-1]
        outputs = np.concatenate([forward, backward], axis=-1)
    mean = outputs.mean(axis=0)
    return mean / np.sqrt((mean**2).sum())


def keras_copy(embedding, k):
    """Kernel k as a Keras model of stacked bidirectional LSTMs."""
    inputs = outputs = keras.Input([None, F])
    for layer in range(LAYERS):
        bidirectional = keras.layers.Bidirectional(keras.layers.LSTM(H, return_sequences=True))
        outputs = bidirectional(outputs)
        bidirectional.set_weights(
            [
                variables[layer].numpy()[k, direction]
                for direction in (0, 1)
                for variables in (
                    embedding.kernels,
                    embedding.recurrent_kernels,
                    embedding.biases,
                )
            ]
        )
    outputs = keras.layers.UnitNormalization()(keras.ops.mean(outputs, axis=1))
    return keras.Model(inputs, outputs)


def test_shared_sequences_equal_the_numpy_reference(embedding):
    sequences = random_sequences(N, T)
    expected = [[reference_embedding(embedding, k, s) for s in sequences] for k in range(K)]
    np.testing.assert_allclose(embedding(sequences), expected, atol=1e-5)


def test_own_sequences_equal_the_numpy_reference(embedding):
    sequences = random_sequences(K, N, T)
    expected = [[reference_embedding(embedding, k, s) for s in sequences[k]] for k in range(K)]
    np.testing.assert_allclose(embedding(sequences), expected, atol=1e-5)


@pytest.mark.parametrize("traced", [False, True])
def test_values_and_gradients_equal_those_of_keras(embedding, traced):
    sequences = tf.constant(random_sequences(N, T))
    direction = np.random.default_rng(3).normal(size=[K, N, 2 * H]).astype(np.float32)

    def value_and_gradients(sequences):
        with tf.GradientTape() as tape:
            tape.watch(sequences)
            embedded = embedding(sequences)
            loss = tf.reduce_sum(embedded * direction)
        sources = [sequences, *embedding.kernels, *embedding.recurrent_kernels, *embedding.biases]
        return embedded, tape.gradient(loss, sources)

    function = tf.function(value_and_gradients) if traced else value_and_gradients
    embedded, gradients = function(sequences)
    input_gradient = np.zeros([N, T, F])
    for k in range(K):
        model = keras_copy(embedding, k)
        with tf.GradientTape() as tape:
            tape.watch(sequences)
            expected = model(sequences)
            loss = tf.reduce_sum(expected * direction[k])
        values = [v.value for v in model.trainable_variables]
        from_inputs, *from_weights = tape.gradient(loss, [sequences, *values])
        np.testing.assert_allclose(embedded[k], expected, atol=1e-5)
        input_gradient += from_inputs
        # Keras lists kernel, recurrent kernel, bias of one direction after the other.
        for number, expected_gradient in enumerate(from_weights):
            layer, rest = divmod(number, 6)
            which_direction, part = divmod(rest, 3)
            gradient = gradients[1 + part * LAYERS + layer][k, which_direction]
            np.testing.assert_allclose(gradient, expected_gradient, atol=1e-4)
    np.testing.assert_allclose(gradients[0], input_gradient, atol=1e-4)


def test_columns_alone_equal_whole_sequences_with_zeros(embedding):
    columns = np.array([0, 3, 4, 9])
    few = random_sequences(N, T)[..., columns]
    whole = np.zeros([N, T, F], np.float32)
    whole[..., columns] = few
    np.testing.assert_allclose(embedding(few, columns), embedding(whole), atol=1e-6)
    own = np.stack([few] * K)
    np.testing.assert_allclose(embedding(own, columns), embedding(whole), atol=1e-6)
    with pytest.raises(ValueError, match="sequences must be"):
        embedding(whole, columns)


def test_no_gradient_is_none(embedding):
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(embedding(random_sequences(N, T))[..., 0])
    gradients = tape.gradient(loss, embedding.trainable_variables)
    assert len(gradients) == 3 * LAYERS
    assert all(gradient is not None and np.any(gradient) for gradient in gradients)


def test_embeddings_have_unit_length(embedding):
    lengths = np.linalg.norm(embedding(random_sequences(N, T)), axis=-1)
    np.testing.assert_allclose(lengths, np.ones([K, N]), rtol=1e-6)
    assert embedding.embedding_size == 2 * H


def test_unknown_sizes_can_be_traced(embedding):
    function = tf.function(
        embedding.__call__, input_signature=[tf.TensorSpec([None, None, F], tf.float32)]
    )
    sequences = random_sequences(N, T)
    np.testing.assert_allclose(function(sequences), embedding(sequences), atol=1e-6)


def test_initial_weights_are_as_documented():
    embedding = SequenceEmbedding(K, F, num_layers=LAYERS, hidden_size=H)
    for kernel in embedding.kernels:
        limit = np.sqrt(6 / (kernel.shape[-2] + kernel.shape[-1]))
        assert 0.9 * limit < np.abs(kernel).max() <= limit
    for recurrent_kernel in embedding.recurrent_kernels:
        product = tf.matmul(recurrent_kernel, recurrent_kernel, transpose_b=True)
        np.testing.assert_allclose(product, np.broadcast_to(np.eye(H), product.shape), atol=1e-5)
    for bias in embedding.biases:
        i, f, g, o = np.split(bias.numpy(), 4, axis=-1)
        assert (f == 1).all()
        assert not np.any([i, g, o])
    # All kernels and directions start differently.
    flat = embedding.recurrent_kernels[0].numpy().reshape(2 * K, -1)
    assert len(np.unique(flat.round(6), axis=0)) == 2 * K


def test_equal_seeds_give_equal_weights_in_the_same_variables():
    embedding = SequenceEmbedding(K, F, num_layers=LAYERS, hidden_size=H, seed=4)
    variables = embedding.trainable_variables
    before = [variable.numpy() for variable in variables]
    kernel = embedding.kernels[0].numpy()
    embedding.reinitialize(5)
    assert not np.allclose(kernel, embedding.kernels[0])
    embedding.reinitialize(4)
    for variable, same, value in zip(embedding.trainable_variables, variables, before, strict=True):
        assert variable is same
        np.testing.assert_array_equal(variable, value)


@pytest.mark.parametrize("shape", [(N, T), (N, T, F + 1), (K + 1, N, T, F), (1, K, N, T, F)])
def test_wrong_shapes_are_refused(embedding, shape):
    with pytest.raises(ValueError, match="sequences"):
        embedding(np.zeros(shape, np.float32))


@pytest.mark.parametrize("name", ["num_kernels", "num_features", "num_layers", "hidden_size"])
def test_sizes_below_one_are_refused(name):
    sizes = {"num_kernels": 1, "num_features": 1, "num_layers": 1, "hidden_size": 1, name: 0}
    with pytest.raises(ValueError, match=name):
        SequenceEmbedding(**sizes)
