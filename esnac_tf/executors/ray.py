"""Students trained by processes that Ray places on the devices of one machine, or of many.

Ray starts these workers, starts them again if they die, and carries what they need and give. The
students of a step are dealt out among them, and those of one worker are trained together. What a
worker that died was training is lost, and reported as lost: whoever submitted it submits it again.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import importlib.util
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from esnac_tf.architecture import ActionSet
from esnac_tf.errors import MissingExtraError, UserError
from esnac_tf.evaluation import Evaluated
from esnac_tf.executors import ExecutorContext, Placement
from esnac_tf.executors.parcel import DataMissingError, check_travels, may_be_read, pack
from esnac_tf.executors.placement import Plan, plan
from esnac_tf.executors.worker import Worker, remove_folder
from esnac_tf.profiling import measured
from esnac_tf.quiet_start import silenced
from esnac_tf.trial import FAILED, LOST, Trial

# Between two looks at the progress of workers.
_POLL_SECS = 1.0
# What a cluster has for answering.
_CONNECT_SECS = 10.0
# What Ray says, at length, when a worker or a node dies, which the search says in a line.
_HIDDEN = r"worker died|Raylet is terminated|has been marked dead"
# What workers have for tidying up.
_CLOSE_SECS = 5.0
# Starts of a worker that fail until the search ends, if there is no other worker.
_MAX_STARTS = 8
# Without any worker until that is told; between tries to start one at most.
_TELL_SECS = 30.0
# Workers that die with a student until it counts as failed.
_MAX_LOSSES = 3


@dataclasses.dataclass
class _Share:
    """Students that a worker trains together, and what is known of it."""

    proposals: Mapping[int, ActionSet]
    step: int
    worker: int = -1
    weights: Sequence[Any] = ()  # references
    events: Any = None  # a reference
    callbacks: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    phase: contextlib.ExitStack = dataclasses.field(default_factory=contextlib.ExitStack)


class RayExecutor:
    """Deals students out among Ray's actors; Ray is started with the first of them.

    A worker that dies is started again by Ray, wherever there is room; until then the others do
    its work. Students that were lost are trained alone, so that one that kills its worker takes no
    others with it.

    Args:
        context: What it works with.
        ray: The module.
        stack: Ends what is started here.
    """

    def __init__(self, context: ExecutorContext, ray: Any, stack: contextlib.ExitStack) -> None:
        self._context, self._ray, self._stack = context, ray, stack
        self._plan: Plan | None = None
        self._fetch: Any = None  # what workers call for what they need
        self._sends_data = False  # whether the training data is part of that
        self._names: list[str] = []  # of what was laid out
        self._workers: list[Any] = []
        # Below, workers are numbers.
        self._starting: dict[Any, int] = {}  # by the reference that tells when they have started
        self._waiting: dict[int, float] = {}  # for another try, until that time
        self._failed_starts: collections.Counter[int] = collections.Counter()
        self._idle: list[int] = []
        self._queue: list[_Share] = []
        self._running: dict[Any, _Share] = {}  # by the reference of their trials
        self._losses: collections.Counter[int] = collections.Counter()
        self._last_news = math.inf  # when a worker was last at work

    def submit(self, proposals: Mapping[int, ActionSet], step: int) -> None:
        """Takes in students that are to be trained."""
        planned, context = self._started(), self._context
        count = min(planned.num_workers, math.ceil(context.placement.step_size / planned.capacity))
        alone = {number for number in proposals if self._losses[number]}
        # By their numbers: whatever part of a step is submitted, the same are together.
        dealt = [[n for n in proposals if n not in alone and n % count == c] for c in range(count)]
        for numbers in [*dealt, *([number] for number in alone)]:
            if numbers:
                self._queue.append(_Share({number: proposals[number] for number in numbers}, step))

    def wait(self) -> int:
        """Waits until the students of a worker are finished or lost, if any are under way."""
        self._started()
        with measured("training"):
            while self._queue or self._running:
                self._dispatch()
                self._follow()
                if self._finish():
                    break
        working = len(self._workers) - len(self._waiting)
        return max(0, working - len(self._queue) - len(self._running))

    def _started(self) -> Plan:
        """Starts Ray and the workers, once."""
        if self._plan is not None:
            return self._plan
        context, ray = self._context, self._ray
        address = _address(context.placement)
        if not ray.is_initialized():
            context.told(f"Joining the Ray cluster at {address}." if address else "Starting Ray.")
            _start_ray(ray, address)
            self._stack.callback(ray.shutdown)
        planned = self._plan = _planned(ray, context.placement)
        context.told(f"Students are trained by {planned}.")
        evaluator = context.evaluator
        if planned.gpus > 1 and evaluator.batches.batch_size % planned.gpus:
            raise UserError(
                f"The batch size must divide among the {planned.gpus} GPUs of a student, received "
                f"{evaluator.batches.batch_size}.\nGive another, or other --gpus_per_candidate."
            )
        self._send(with_data=not may_be_read(evaluator))
        kind = ray.remote(Worker).options(
            num_cpus=planned.cpus,
            num_gpus=planned.gpus,
            max_restarts=-1,
            max_concurrency=2,  # so that it tells its progress
        )
        self._workers = [
            kind.remote(planned.cpus, planned.gpus) for _ in range(planned.num_workers)
        ]
        self._stack.callback(self._stop)
        for number in range(planned.num_workers):
            self._expect(number)
        return planned

    def _send(self, with_data: bool) -> None:
        """Lays out for workers what they work with."""
        ray = self._ray
        parcel = pack(self._context.evaluator, ray.cloudpickle.dumps, with_data=with_data)
        self._names.append(parcel.name)
        self._fetch = functools.partial(ray.get, ray.put(parcel))
        self._sends_data = with_data

    def _stop(self) -> None:
        """Ends the workers, and removes what they kept on the disks of their machines."""
        ray = self._ray
        for share in self._running.values():
            share.phase.close()
        for worker in self._workers:
            ray.kill(worker)
        strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        tidy = ray.remote(num_cpus=0)(remove_folder)
        nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
        tidying = [
            tidy.options(scheduling_strategy=strategy(node, soft=False)).remote(name)
            for node in nodes
            for name in self._names
        ]
        ray.wait(tidying, num_returns=len(tidying), timeout=_CLOSE_SECS)

    def _expect(self, worker: int) -> None:
        """Notes that a worker is about to start, or to start again."""
        self._waiting.pop(worker, None)
        self._starting[self._workers[worker].prepare.remote(self._fetch)] = worker

    def _dispatch(self) -> None:
        """Gives students to workers that have none."""
        while self._queue and self._idle:
            share = self._queue.pop(0)
            share.worker = self._idle.pop(0)
            worker = self._workers[share.worker]
            evaluate = worker.evaluate.options(num_returns=1 + len(share.proposals))
            trials, *share.weights = evaluate.remote(self._fetch, share.proposals, share.step)
            share.events = worker.events.remote()
            title = f"Step {share.step + 1}"
            if len(self._workers) > 1:
                title += f", worker {share.worker + 1}"
            epochs = self._context.evaluator.config.epochs
            on_epoch, on_batch = share.phase.enter_context(self._context.progress(title, epochs))
            share.callbacks = {"on_epoch": on_epoch, "on_batch": on_batch}
            self._running[trials] = share

    def _follow(self) -> None:
        """Shows what workers tell of their trainings."""
        shares = {share.events: share for share in self._running.values()}
        if not shares:
            return
        told, _ = self._ray.wait(list(shares), num_returns=len(shares), timeout=0)
        for reference in told:
            share = shares[reference]
            with contextlib.suppress(self._ray.exceptions.RayError):  # noticed elsewhere
                for name, arguments in self._ray.get(reference):
                    share.callbacks[name](*arguments)
            share.events = self._workers[share.worker].events.remote()

    def _finish(self) -> bool:
        """Waits a moment; whether students are finished or lost by then."""
        now = time.monotonic()
        for worker in [worker for worker, end in self._waiting.items() if end <= now]:
            self._expect(worker)
        self._tell_of_waiting(now)
        under_way = [*self._running, *self._starting]
        if not under_way:
            time.sleep(_POLL_SECS)
            return False
        self._ray.wait(under_way, num_returns=1, timeout=_POLL_SECS)
        done, _ = self._ray.wait(under_way, num_returns=len(under_way), timeout=0)
        finished = False
        for reference in done:
            if reference in self._starting:
                self._meet(reference, self._starting.pop(reference))
            else:
                self._take(reference, self._running.pop(reference))
                finished = True
        return finished

    def _tell_of_waiting(self, now: float) -> None:
        """Says so, now and then, where there are students and for long no worker for them."""
        if self._running or self._idle:
            self._last_news = math.inf
        elif self._last_news == math.inf:
            self._last_news = now
        elif now - self._last_news > _TELL_SECS:
            self._last_news = now
            planned = self._started()
            self._context.told(
                f"Waiting for Ray to place a worker of {planned.cpus} CPUs and {planned.gpus} GPUs "
                "(see `ray status`)."
            )

    def _meet(self, reference: Any, worker: int) -> None:
        """Takes in a worker that has started, or has not."""
        errors = self._ray.exceptions
        try:
            is_prepared = self._ray.get(reference)
        except errors.RayTaskError as error:  # of our own code, and so on every try
            if isinstance(error.cause, UserError):
                raise error.cause from None
            raise _cannot_start(error) from error
        except errors.RayError as error:  # Ray starts it again, where and when there is room
            self._failed_starts[worker] += 1
            count = self._failed_starts[worker]
            if count >= _MAX_STARTS and not (self._running or self._idle or self._starting):
                raise _cannot_start(error) from error
            self._waiting[worker] = time.monotonic() + min(2.0 ** (count - 1), _TELL_SECS)
        else:
            del self._failed_starts[worker]
            if is_prepared:
                self._idle.append(worker)
                return
            if not self._sends_data:
                self._context.told("A machine lacks the files of the training data: it is sent.")
                self._send(with_data=True)
            self._expect(worker)

    def _take(self, reference: Any, share: _Share) -> None:
        """Hands over what became of students."""
        ray, errors = self._ray, self._ray.exceptions
        share.phase.close()
        try:
            trials = ray.get(reference)
        except errors.RayTaskError as error:
            if isinstance(error.cause, DataMissingError):  # started again on another machine
                self._queue.insert(0, share)
                self._expect(share.worker)
                return
            self._idle.append(share.worker)
            if isinstance(error.cause, UserError):
                raise error.cause from None
            raise
        except errors.RayError:
            # It may only have been out of reach, and still be at work.
            ray.kill(self._workers[share.worker], no_restart=False)
            self._expect(share.worker)
            self._context.on_finished([Evaluated(trial, None) for trial in self._lost(share)])
            return
        self._idle.append(share.worker)
        evaluated = []
        for trial, weights in zip(trials, share.weights, strict=True):
            student = functools.partial(self._student, trial, weights)
            evaluated.append(Evaluated(trial, student if trial.is_complete else None))
        self._context.on_finished(evaluated)

    def _lost(self, share: _Share) -> list[Trial]:
        """The trials of students whose worker died."""
        trials = []
        for number, actions in share.proposals.items():
            self._losses[number] += 1
            count = self._losses[number]
            state, failure = LOST, "its worker died"
            if count >= _MAX_LOSSES:
                state, failure = FAILED, f"its worker died, {count} times"
            failed = self._context.evaluator.failed(number, actions, share.step, failure)
            trials.append(dataclasses.replace(failed, state=state))
        return trials

    def _student(self, trial: Trial, reference: Any) -> keras.Model | None:
        """A student from afar; None if its weights are gone with their node."""
        try:
            weights = self._ray.get(reference)
        except self._ray.exceptions.RayError:
            return None
        student = self._context.evaluator.builder.build(trial.actions)
        student.set_weights(weights)
        return student


def _cannot_start(error: Exception) -> UserError:
    return UserError(
        f"Ray can't start a worker: {_last_line(error)}\n"
        "Every node needs the same esnac_tf and TensorFlow, and modules of your own."
    )


def _address(placement: Placement) -> str:
    """Of the cluster to join; empty: one is started here."""
    return placement.ray_address or os.environ.get("RAY_ADDRESS", "")


def _planned(ray: Any, placement: Placement) -> Plan:
    """The workers that the cluster which was joined has room for."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    asked = placement.cpus_per_candidate, placement.gpus_per_candidate
    return plan(nodes, placement.step_size, *asked)


def _start_ray(ray: Any, address: str) -> None:
    """Joins a cluster, or starts one on this machine.

    Raises:
        UserError: There is no cluster at the address, or none can be started.
    """
    settings = {"address": address} if address else {"address": "local", "include_dashboard": False}
    handler = signal.getsignal(signal.SIGTERM)
    try:
        host, _, port = address.rpartition(":")
        if host and port.isdigit():  # Ray itself would try for ten minutes
            socket.create_connection((host.rpartition("/")[2], int(port)), _CONNECT_SECS).close()
        with silenced():
            ray.init(log_to_driver=False, configure_logging=False, **settings)
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        reason = _last_line(error)
        if not address:
            raise UserError(
                f"Ray can't start on this machine: {reason}\n"
                "Look at its temporary folder (RAY_TMPDIR), and at what `ray start --head` says."
            ) from error
        if "AuthToken" in str(error.__cause__):
            told = "has another token" if "RAY_AUTH_MODE" in os.environ else "wants a token"
            raise UserError(
                f"The Ray cluster at {address} {told}.\n"
                "Set RAY_AUTH_MODE=token here, too, with its token in ~/.ray/auth_token."
            ) from error
        raise UserError(
            f"The Ray cluster at {address} can't be joined: {reason}\n"
            "Start one with `ray start --head`, or leave --ray_address out for one on this machine."
        ) from error
    finally:  # Ray's own would end the process with a dump of its memory
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


@contextlib.contextmanager
def opened(context: ExecutorContext) -> Iterator[RayExecutor]:
    """Makes the executor.

    Raises:
        MissingExtraError: Ray is not installed.
        UserError: The training data or the metric can't be sent to other processes.
    """
    ray = _imported()
    check_travels(context.evaluator, ray.cloudpickle.dumps)
    with contextlib.ExitStack() as stack:
        yield RayExecutor(context, ray, stack)


def check(placement: Placement) -> None:
    """Looks for the cluster, and for room in it.

    Raises:
        MissingExtraError: Ray is not installed.
        UserError: The cluster can't be joined, or has no room for a student.
    """
    ray = _imported()
    address = _address(placement)
    if ray.is_initialized():
        _planned(ray, placement)
    elif address:
        _start_ray(ray, address)
        try:
            _planned(ray, placement)
        finally:
            ray.shutdown()
    else:
        gpus = len(tf.config.list_physical_devices("GPU"))
        asked = placement.cpus_per_candidate, placement.gpus_per_candidate
        plan([{"CPU": os.cpu_count() or 1, "GPU": gpus}], placement.step_size, *asked)


def _imported() -> Any:
    """Ray.

    Raises:
        MissingExtraError: It is not installed.
    """
    if importlib.util.find_spec("ray") is None:
        raise MissingExtraError("executor='ray'", "ray", "ray")
    # Ray reads these when it is imported.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", _HIDDEN)
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "error")
    import ray
    import ray.cloudpickle
    import ray.util.scheduling_strategies

    return ray
