"""Joined requests: who is joined, what each is answered, what is refused, and what is kept. No TensorFlow: the model is NumPy."""

import gc
import threading
import time
import weakref

import numpy as np
import pytest
from conftest import wait_for

from tfcq.serving.server.batching import Batcher, Scheduler, _Request
from tfcq.serving.server.batching_parameters import BatchingParameters
from tfcq.serving.server.errors import RequestError, UsageError, invalid

LONG = 100_000_000  # microseconds: such a batch runs when it is full, not before
WAIT = 120  # seconds, for a machine that is busy


class Model:
    """Doubles `x`; refuses rows with a negative number; waits while `go` is not set; remembers what it was run on."""

    def __init__(self):
        self.runs, self.deadlines, self.go = [], [], threading.Event()
        self.go.set()

    def __call__(self, signature_name, inputs, output_filter, deadline):
        self.runs.append({name: array.copy() for name, array in inputs.items()})
        self.deadlines.append(deadline)
        assert self.go.wait(WAIT)
        x = inputs["x"]
        if signature_name == "scalar":
            return {"y": np.float32(1)}
        if (x < 0).any():
            raise invalid(f"negative: {x[x < 0][0]}")
        outputs = {"y": x * 2, "sum": x.reshape(len(x), -1).sum(axis=1)}
        return {name: outputs[name] for name in output_filter or outputs}

    @property
    def sizes(self):
        return [len(run["x"]) for run in self.runs]


@pytest.fixture
def model():
    return Model()


@pytest.fixture
def batcher(request):
    """Function from `BatchingParameters` to a `Batcher` whose threads end with the test."""
    schedulers = []

    def make(num_threads=1, **parameters):
        schedulers.append(Scheduler(num_threads))
        return Batcher(BatchingParameters(**parameters), schedulers[-1])

    yield make
    for scheduler in schedulers:
        scheduler.stop()


def row(*values):
    return {"x": np.float32([values])}


class Asked(threading.Thread):
    """A request on a thread of its own: `result` is its answer or its RequestError."""

    def __init__(self, batcher, model, inputs, signature_name="double", **options):
        super().__init__(daemon=True)
        self.result = None
        self._ask = lambda: batcher.predict(model, signature_name, inputs, **options)
        self.start()

    def run(self):
        try:
            self.result = self._ask()
        except RequestError as error:
            self.result = error

    def answer(self):
        self.join(WAIT)
        assert not self.is_alive()
        return self.result


def ask_all(batcher, model, all_inputs, **options):
    """The answers to requests that wait together; the last one makes the batch full, or its time has come."""
    return [asked.answer() for asked in [Asked(batcher, model, inputs, **options) for inputs in all_inputs]]


def test_requests_are_joined_and_each_has_its_own_rows(batcher, model):
    many = batcher(max_batch_size=8, batch_timeout_micros=LONG)
    inputs = [{"x": np.float32([[10 * n, n]])} for n in range(6)] + [{"x": np.float32([[1, 2], [3, 4]])}]
    answers = ask_all(many, model, inputs)
    assert model.sizes == [8]
    for asked, answer in zip(inputs, answers, strict=True):
        np.testing.assert_array_equal(answer["y"], asked["x"] * 2)
        np.testing.assert_array_equal(answer["sum"], asked["x"].sum(axis=1))


def test_a_batch_waits_no_longer_than_its_time_and_is_padded(batcher, model):
    padding = batcher(max_batch_size=8, batch_timeout_micros=1000, allowed_batch_sizes=(4, 8))
    begun = time.monotonic()
    assert ask_all(padding, model, [row(5, 6)])[0]["y"].tolist() == [[10, 12]]
    assert time.monotonic() - begun >= 0.001
    assert model.runs[0]["x"].tolist() == [[5, 6]] * 4  # a row of the request itself: any other might be refused
    assert padding.num_waiting == 0


def test_threads_share_the_work_of_several_batches(batcher, model):
    model.go.clear()
    parallel = batcher(num_threads=2, max_batch_size=1)
    asked = [Asked(parallel, model, row(n)) for n in range(2)]
    wait_for(lambda: len(model.runs) == 2)
    model.go.set()
    assert [one.answer()["y"].item() for one in asked] == [0, 2]


@pytest.mark.parametrize("first, second", [
    ((row(1), {}), (row(1, 2), {})),
    ((row(1), {}), ({"x": np.float64([[1]])}, {})),
    ((row(1), {}), (row(1), {"output_filter": ["y"]})),
    ((row(1), {}), (row(1), {"signature_name": "other"})),
    ((row(1), {}), ({"x": np.float32([[1]]), "z": np.zeros(1)}, {})),
])
def test_what_differs_in_more_than_its_values_is_not_joined(batcher, model, first, second):
    careful = batcher(max_batch_size=2, batch_timeout_micros=LONG)
    asked = [Asked(careful, model, inputs, **options) for inputs, options in (first, second)]
    wait_for(lambda: careful.num_waiting == 2)
    asked += [Asked(careful, model, inputs, **options) for inputs, options in (first, second)]
    answers = [one.answer() for one in asked]
    assert model.sizes == [2, 2]
    for (inputs, options), answer in zip((first, second) * 2, answers, strict=True):
        np.testing.assert_array_equal(answer["y"], inputs["x"] * 2)
        assert answer["y"].dtype == inputs["x"].dtype and set(answer) == set(options.get("output_filter", ["y", "sum"]))


@pytest.mark.parametrize("inputs", [
    {"x": np.float32(3)},
    {"x": np.zeros((0, 2), np.float32)},
    {"x": np.zeros((2, 1), np.float32), "z": np.zeros(1)},
])
def test_inputs_without_common_rows_are_run_alone(batcher, model, inputs):
    batcher(max_batch_size=8, batch_timeout_micros=LONG).predict(model, "scalar", inputs)
    assert model.runs[0]["x"].shape == inputs["x"].shape


def test_a_request_of_too_many_rows_is_refused(batcher, model):
    with pytest.raises(RequestError, match="'double': 9 rows are more than max_batch_size, 8") as caught:
        batcher(max_batch_size=8).predict(model, "double", {"x": np.zeros((9, 1), np.float32)})
    assert caught.value.code == "INVALID_ARGUMENT" and model.runs == []


def test_a_request_is_not_split_unasked(batcher, model):
    whole = batcher(max_batch_size=4, batch_timeout_micros=LONG)
    three = Asked(whole, model, {"x": np.zeros((3, 1), np.float32)})
    wait_for(lambda: whole.num_waiting == 1)
    for asked in (three, *[Asked(whole, model, {"x": np.ones((2, 1), np.float32)}) for _ in range(2)]):
        asked.answer()
    assert model.sizes == [3, 4]


def test_large_requests_are_split(batcher, model):
    splitting = batcher(max_batch_size=9, batch_timeout_micros=LONG, allowed_batch_sizes=(4,), max_execution_batch_size=4,
                        enable_large_batch_splitting=True)
    small = Asked(splitting, model, {"x": np.float32([[7], [8]])})
    wait_for(lambda: splitting.num_waiting == 1)
    large = {"x": np.arange(6, dtype=np.float32)[:, None]}
    assert Asked(splitting, model, large).answer()["y"].ravel().tolist() == [0, 2, 4, 6, 8, 10]
    assert small.answer()["y"].ravel().tolist() == [14, 16]
    assert [run["x"].ravel().tolist() for run in model.runs] == [[7, 8, 0, 1], [2, 3, 4, 5]]


def test_a_full_queue_refuses(batcher, model):
    model.go.clear()
    short = batcher(max_batch_size=2, max_enqueued_batches=2, batch_timeout_micros=LONG)
    pair = {"x": np.float32([[1], [2]])}
    running = Asked(short, model, pair)
    wait_for(lambda: len(model.runs) == 1)
    waiting = [Asked(short, model, pair) for _ in range(2)]
    wait_for(lambda: short.num_waiting == 2)
    with pytest.raises(RequestError, match=r"queue is full, 2 batches wait \(max_enqueued_batches\)") as caught:
        short.predict(model, "double", pair)
    assert caught.value.code == "UNAVAILABLE"
    other = Asked(short, model, pair, signature_name="other")  # has a queue of its own
    wait_for(lambda: short.num_waiting == 3)
    model.go.set()
    for one in (running, *waiting, other):
        assert one.answer()["y"].ravel().tolist() == [2, 4]


def test_a_refused_row_fails_its_request_alone(batcher, model):
    fragile = batcher(max_batch_size=8, batch_timeout_micros=LONG, allowed_batch_sizes=(8,))
    answers = ask_all(fragile, model, [row(-5 if n == 3 else n) for n in range(8)])
    for n, answer in enumerate(answers):
        if n == 3:
            assert answer.code == "INVALID_ARGUMENT" and str(answer) == "negative: -5.0"
        else:
            assert answer["y"].item() == 2 * n
    assert len(model.runs) == 7  # halves, not each request by itself


def test_an_output_without_rows_cannot_be_batched(batcher, model):
    answers = ask_all(batcher(max_batch_size=2, batch_timeout_micros=LONG), model, [row(1), row(2)], signature_name="scalar")
    assert len(model.runs) == 1
    for error in answers:
        assert error.code == "FAILED_PRECONDITION" and "for 2 rows output 'y' has shape []" in str(error)


def test_an_expired_request_leaves_the_queue(batcher, model):
    patient = batcher(max_batch_size=3, max_enqueued_batches=1, batch_timeout_micros=LONG)
    with pytest.raises(RequestError, match="deadline") as caught:
        patient.predict(model, "double", row(1), deadline=time.monotonic() + 0.05)
    assert caught.value.code == "DEADLINE_EXCEEDED" and patient.num_waiting == 0 and model.runs == []
    with pytest.raises(RequestError, match="deadline"):
        patient.predict(model, "double", row(1), deadline=time.monotonic() - 1)
    expiring = Asked(patient, model, row(3), deadline=time.monotonic() + 0.05)
    staying = Asked(patient, model, row(4))
    assert expiring.answer().code == "DEADLINE_EXCEEDED"
    last = Asked(patient, model, {"x": np.float32([[5], [6]])})
    assert staying.answer()["y"].item() == 8 and last.answer()["y"].ravel().tolist() == [10, 12]
    assert sorted(model.runs[0]["x"].ravel()) == [4, 5, 6] and len(model.runs) == 1


def test_a_run_has_the_latest_deadline_of_its_requests(batcher, model):
    soon, late = time.monotonic() + 1000, time.monotonic() + 2000
    pairs = batcher(max_batch_size=2, batch_timeout_micros=LONG)
    for deadlines in ([soon, late], [soon, None]):
        for one in [Asked(pairs, model, row(1), deadline=deadline) for deadline in deadlines]:
            one.answer()
    assert model.deadlines == [late, None]


@pytest.mark.parametrize("seconds", [1e12, float("inf")])
def test_a_deadline_later_than_any_thread_can_wait(batcher, model, seconds):
    assert batcher().predict(model, "double", row(1), deadline=time.monotonic() + seconds)["y"].item() == 2


@pytest.mark.parametrize("value", [1, -1])
def test_nothing_of_a_request_is_kept(batcher, value):
    """Neither tensors nor the model, by a thread that waits for the next batch or by an error; no collector is needed."""
    seen = []

    def run(signature_name, inputs, output_filter, deadline):
        seen.append(weakref.ref(inputs["x"]))
        if value < 0:
            raise invalid("negative")
        return {"y": inputs["x"] * 2}

    idle = batcher(max_batch_size=4, allowed_batch_sizes=(4,))
    gc.collect()
    gc.disable()
    try:
        try:
            idle.predict(run, "double", row(value))
        except RequestError:
            assert value < 0
        seen.append(weakref.ref(run))
        del run
        wait_for(lambda: [one() for one in seen] == [None, None])
    finally:
        gc.enable()


def test_a_request_that_is_failed_twice_is_answered():
    """What fails a batch may come after some of its requests have their rows."""
    request = _Request(row(1), 3, None)
    for start, num_rows in ((0, 2), (0, 2)):
        request.put(start, num_rows, error=invalid("broken"))
    assert request.done.is_set()


def test_stopping_runs_what_waits(model):
    scheduler = Scheduler(1)
    asked = Asked(Batcher(BatchingParameters(batch_timeout_micros=LONG), scheduler), model, row(1))
    scheduler.stop()
    assert asked.answer()["y"].item() == 2


def test_the_end_waits_for_a_run_whose_requests_have_gone(model):
    scheduler = Scheduler(1)
    model.go.clear()
    late = Asked(Batcher(BatchingParameters(), scheduler), model, row(1), deadline=time.monotonic() + 0.5)
    assert late.answer().code == "DEADLINE_EXCEEDED" and len(model.runs) == 1
    scheduler.stop()
    end = threading.Thread(target=scheduler.join, daemon=True)
    end.start()
    end.join(0.1)
    assert end.is_alive()
    model.go.set()
    end.join(WAIT)
    assert not end.is_alive()


PARAMETERS = """
max_batch_size { value: 64 } batch_timeout_micros { value: 2000 } max_enqueued_batches { value: 100 }
num_batch_threads { value: 3 } thread_pool_name { value: "pool" } allowed_batch_sizes: 8 allowed_batch_sizes: 32
enable_large_batch_splitting { value: true } max_execution_batch_size { value: 32 }
"""


def read(folder, text):
    (folder / "batching.config").write_text(text)
    return BatchingParameters.of_file(str(folder / "batching.config"), "FILE")


def test_parameters_of_a_file(tmp_path):
    assert read(tmp_path, PARAMETERS) == BatchingParameters(64, 2000, 100, 3, (8, 32), True, 32)
    assert [read(tmp_path, PARAMETERS).padded(rows) for rows in (1, 8, 9, 32)] == [8, 8, 32, 32]
    default = read(tmp_path, "")
    assert (default.max_batch_size, default.batch_timeout_micros, default.max_enqueued_batches) == (1000, 0, 10)
    assert default.padded(17) == 17 and default.run_size == 1000


@pytest.mark.parametrize("text, problem", [
    ("max_batch_size: 3", "does not hold BatchingParameters as text"),
    ("nonsense: 3", "nonsense"),
    ("max_batch_size { value: 0 }", "max_batch_size must be at least 1, received 0"),
    ("batch_timeout_micros { value: -1 }", "batch_timeout_micros must be at least 0"),
    ("num_batch_threads { value: 0 }", "num_batch_threads must be at least 1"),
    ("max_enqueued_batches { value: 0 }", "max_enqueued_batches must be at least 1"),
    ("pad_variable_length_inputs: true", "pad_variable_length_inputs is not supported"),
    ("max_batch_size { value: 8 } allowed_batch_sizes: 4", r"the last of allowed_batch_sizes must be max_batch_size \(8\)"),
    ("max_batch_size { value: 8 } allowed_batch_sizes: [8, 8]", "must be positive and increase, received 8, 8"),
    ("max_execution_batch_size { value: 8 }", "needs enable_large_batch_splitting"),
    ("enable_large_batch_splitting { value: true } max_execution_batch_size { value: 8000 }", "between 1 and max_batch_size"),
])
def test_parameters_that_cannot_be(tmp_path, text, problem):
    with pytest.raises(UsageError, match=f"^FILE.*{problem}"):
        read(tmp_path, text)
    with pytest.raises(UsageError, match="cannot be read"):
        BatchingParameters.of_file(str(tmp_path / "none"), "FILE")
