"""Ctrl+C that can't get lost."""

import contextlib
import signal
import threading

import pytest

from esnac_tf.distillation.interruption import interruptible


def swallow():
    with contextlib.suppress(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


@pytest.fixture(autouse=True)
def the_handler_is_put_back():
    before = signal.getsignal(signal.SIGINT)
    yield
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interruption_that_became_another_error_is_one_again():
    def block():
        with interruptible():
            swallow()
            raise SystemError("returned a result with an exception set")

    with pytest.raises(KeyboardInterrupt):
        block()


def test_an_interruption_that_was_swallowed_comes_at_the_end():
    steps = []

    def block():
        with interruptible(), interruptible():
            swallow()
            steps.append(True)

    with pytest.raises(KeyboardInterrupt):
        block()
    assert steps


def test_nobody_is_blamed_for_an_interruption():
    blamed = []

    def block():
        with interruptible() as check:
            check()
            swallow()
            check()
            blamed.append(True)

    with pytest.raises(KeyboardInterrupt):
        block()
    assert not blamed


def test_without_an_interruption_errors_are_what_they_are():
    with interruptible():
        pass
    with pytest.raises(ValueError, match="mine"), interruptible():
        raise ValueError("mine")


def test_other_threads_and_ignored_signals_are_left_alone():
    passed = []

    def work():
        with interruptible():
            passed.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruptible():
            signal.raise_signal(signal.SIGINT)
            passed.append(True)
    finally:
        signal.signal(signal.SIGINT, before)
    assert passed == [True, True]
