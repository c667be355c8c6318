"""Counts and latencies of requests in Prometheus' text format, under the metric names of TF Serving."""

import bisect
import itertools
import os
import threading

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf.message import Message

from .errors import UsageError, one_line

DEFAULT_PATH = "/monitoring/prometheus/metrics"

# TF Serving's buckets (servables/tensorflow/util.cc): 33 limits, from 10 microseconds, each 1.8 times the one before.
LATENCY_LIMITS = tuple(10 * 1.8**power for power in range(33))

_COUNT = ":tensorflow:serving:request_count"
_LATENCY = ":tensorflow:serving:request_latency"


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
    try:
        with open(os.path.expanduser(path), encoding="utf-8") as file:
            config = text_format.Parse(file.read(), monitoring_config_class()())
    except OSError as error:
        raise UsageError(f"--monitoring_config_file={path} cannot be read: {error.strerror}") from error
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise UsageError(f"--monitoring_config_file={path} is not a MonitoringConfig: {one_line(error)}") from error
    if not config.prometheus_config.enable:
        return None
    return config.prometheus_config.path or DEFAULT_PATH


class RequestMetrics:
    """Counts requests; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, str], int] = {}  # {(model name, status): count}
        # {(model name, API, entry point, status): (count in each bucket, sum of microseconds)}
        self._latencies: dict[tuple[str, str, str, str], tuple[list[int], float]] = {}

    def record(self, model_name: str, api: str, entrypoint: str, status: str, seconds: float) -> None:
        """Adds one request.

        Args:
            model_name: the name of a served model, "" for any other: names that clients invent must not become labels.
            api: "Predict", "GetModelMetadata", ...
            entrypoint: "GRPC" or "REST".
            status: the name of a canonical code.
            seconds: how long it took.
        """
        microseconds = seconds * 1e6
        with self._lock:
            self._counts[model_name, status] = self._counts.get((model_name, status), 0) + 1
            key = (model_name, api, entrypoint, status)
            buckets, total = self._latencies.setdefault(key, ([0] * (len(LATENCY_LIMITS) + 1), 0.0))
            buckets[bisect.bisect_right(LATENCY_LIMITS, microseconds)] += 1
            self._latencies[key] = (buckets, total + microseconds)

    def page(self) -> str:
        """All metrics in Prometheus' text format."""
        lines = [f"# TYPE {_COUNT} counter"]
        with self._lock:
            for (model_name, status), count in sorted(self._counts.items()):
                lines.append(f'{_COUNT}{{model_name="{model_name}",status="{status}"}} {count}')
            lines.append(f"# TYPE {_LATENCY} histogram")
            for (model_name, api, entrypoint, status), (buckets, total) in sorted(self._latencies.items()):
                labels = f'model_name="{model_name}",API="{api}",entrypoint="{entrypoint}",status="{status}"'
                limits = [f"{limit:g}" for limit in LATENCY_LIMITS] + ["+Inf"]
                for limit, count in zip(limits, itertools.accumulate(buckets), strict=True):
                    lines.append(f'{_LATENCY}_bucket{{{labels},le="{limit}"}} {count}')
                lines.append(f"{_LATENCY}_sum{{{labels}}} {total:.0f}")
                lines.append(f"{_LATENCY}_count{{{labels}}} {sum(buckets)}")
        return "\n".join(lines) + "\n"
