"""Counts and latencies of requests in Prometheus' text format, under the metric names of TF Serving."""

import bisect
import itertools
import threading
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

from . import text_protos

DEFAULT_PATH = "/monitoring/prometheus/metrics"

# TF Serving's buckets (servables/tensorflow/util.cc): 33 limits, from 10 microseconds, each 1.8 times the one before.
LATENCY_LIMITS = tuple(10 * 1.8**power for power in range(33))

_COUNT = ":tensorflow:serving:request_count"
_LATENCY = ":tensorflow:serving:request_latency"
_RUNTIME_LATENCY = ":tensorflow:serving:runtime_latency"
_RUNTIME = "TF1"  # the name of TF Serving's default runtime, also for models of TensorFlow 2


def monitoring_config_class() -> type[Message]:
    """The message class `MonitoringConfig` of tensorflow_serving/config/monitoring_config.proto.

    The tensorflow-serving-api package does not have it, so its few fields are declared here.
    """
    file = descriptor_pb2.FileDescriptorProto(name="local/monitoring_config.proto", package="tensorflow.serving.local",
                                              syntax="proto3")
    kinds = descriptor_pb2.FieldDescriptorProto
    prometheus = file.message_type.add(name="PrometheusConfig")
    prometheus.field.add(name="enable", number=1, type=kinds.TYPE_BOOL, label=kinds.LABEL_OPTIONAL)
    prometheus.field.add(name="path", number=2, type=kinds.TYPE_STRING, label=kinds.LABEL_OPTIONAL)
    monitoring = file.message_type.add(name="MonitoringConfig")
    monitoring.field.add(name="prometheus_config", number=1, type=kinds.TYPE_MESSAGE, label=kinds.LABEL_OPTIONAL,
                         type_name=f".{file.package}.PrometheusConfig")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.MonitoringConfig"))


def read_metrics_path(path: str) -> str | None:
    """The URL path of the metrics that a monitoring file asks for, None if it does not enable them.

    Raises:
        UsageError: if the file cannot be read or is not a `MonitoringConfig` in protobuf's text format.
    """
    config: Any = text_protos.read(path, f"--monitoring_config_file={path}", monitoring_config_class()())
    if not config.prometheus_config.enable:
        return None
    return config.prometheus_config.path or DEFAULT_PATH


class RequestMetrics:
    """Counts requests; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, str], int] = {}  # {(model name, status): count}
        # {(metric, labels): (count in each bucket, sum of microseconds)}
        self._latencies: dict[tuple[str, str], tuple[list[int], float]] = {}

    def record(self, model_name: str, api: str, entrypoint: str, status: str, seconds: float) -> None:
        """Adds one request. As in TF Serving, only those that succeed have a latency.

        Args:
            model_name: the name of a served model, "" for any other: names that clients invent must not become labels.
            api: "Predict", "GetModelMetadata", ...; by REST TF Serving writes "predict".
            entrypoint: "GRPC" or "REST".
            status: the name of a canonical code.
            seconds: how long it took.
        """
        with self._lock:
            self._counts[model_name, status] = self._counts.get((model_name, status), 0) + 1
            if status == "OK":
                self._add(_LATENCY, f'model_name="{_escaped(model_name)}",API="{api}",entrypoint="{entrypoint}"', seconds)

    def record_runtime(self, model_name: str, api: str, seconds: float) -> None:
        """Adds one run of a model that succeeded.

        Args:
            model_name: as in `record`.
            api: "Predict", by gRPC and by REST.
            seconds: how long the model took, with its wait for a batch.
        """
        with self._lock:
            self._add(_RUNTIME_LATENCY, f'model_name="{_escaped(model_name)}",API="{api}",runtime="{_RUNTIME}"', seconds)

    def page(self) -> str:
        """All metrics in Prometheus' text format."""
        lines = [f"# TYPE {_COUNT} counter"]
        with self._lock:
            for (model_name, status), count in sorted(self._counts.items()):
                lines.append(f'{_COUNT}{{model_name="{_escaped(model_name)}",status="{status}"}} {count}')
            for metric in (_LATENCY, _RUNTIME_LATENCY):
                lines.append(f"# TYPE {metric} histogram")
                for (_, labels), entry in sorted(item for item in self._latencies.items() if item[0][0] == metric):
                    lines += _histogram(metric, labels, *entry)
        return "\n".join(lines) + "\n"

    def _add(self, metric, labels, seconds):
        microseconds = seconds * 1e6
        buckets, total = self._latencies.setdefault((metric, labels), ([0] * (len(LATENCY_LIMITS) + 1), 0.0))
        buckets[bisect.bisect_right(LATENCY_LIMITS, microseconds)] += 1
        self._latencies[metric, labels] = (buckets, total + microseconds)


def _escaped(name):
    """A label's value in Prometheus' text format."""
    return name.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _histogram(metric, labels, buckets, total):
    limits = [f"{limit:g}" for limit in LATENCY_LIMITS] + ["+Inf"]
    for limit, count in zip(limits, itertools.accumulate(buckets), strict=True):
        yield f'{metric}_bucket{{{labels},le="{limit}"}} {count}'
    yield f"{metric}_sum{{{labels}}} {total:.0f}"
    yield f"{metric}_count{{{labels}}} {sum(buckets)}"
