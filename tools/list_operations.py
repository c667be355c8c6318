"""Prints the operations that a TensorFlow release runs on a CPU, and their attributes, for `tfcq.exporting.operations`.

    python3 -m venv /tmp/of_server && /tmp/of_server/bin/pip install tensorflow==2.19.1
    /tmp/of_server/bin/python tools/list_operations.py >tfcq/exporting/operations_of_tf_serving.txt

It runs in an environment of that release, without tfcq.
"""

import re

import tensorflow as tf
from tensorflow.core.framework import op_def_pb2
from tensorflow.python.client import pywrap_tf_session
from tensorflow.python.framework import kernels

HEADER = """\
# The operations of TensorFlow {version} with a kernel for CPUs, each with its attributes: those of the stock image
# tensorflow/serving:{version}, whose server is linked with all kernels of TensorFlow. Made by tools/list_operations.py with
# the wheel tensorflow=={version}. Left out: operations in Python (py_function), which no server has; data sets; collectives,
# TPUs and XLA; those that begin with an underscore, which TensorFlow alone adds; those of TensorFlow Text and Decision Forests,
# which the image has too.
tensorflow {version}
graph_def_version {graph_def_version}
"""
LEFT_OUT = re.compile(r"_|Collective|Dataset|Experimental|Tpu|TPU|Xla|.*Dataset(V\d+)?$|(Eager)?PyFunc")
OF_A_CPU = ("CPU", "DEFAULT")  # the second: for every kind of device


def main() -> None:
    """Prints the list."""
    registered = op_def_pb2.OpList.FromString(pywrap_tf_session.TF_GetBuffer(pywrap_tf_session.TF_GetAllOpList()))
    runnable = {kernel.op for kernel in kernels.get_all_registered_kernels().kernel if kernel.device_type in OF_A_CPU}
    print(HEADER.format(version=tf.__version__, graph_def_version=tf.version.GRAPH_DEF_VERSION), end="")
    for operation in sorted(registered.op, key=lambda operation: operation.name):
        if operation.name in runnable and not LEFT_OUT.match(operation.name):
            print(*[operation.name, *sorted(attribute.name for attribute in operation.attr)])


if __name__ == "__main__":
    main()
