"""What an asked model refuses is told in one line."""

import numpy as np
import pytest
import tensorflow as tf

from tfcq.bulk.model import AskedModel
from tfcq.errors import UserError


def test_a_value_that_an_endpoint_refuses_is_an_error_in_one_line():
    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None], tf.int32, "classes")])
    def sample_class(classes):
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(classes <= 9), ["at most 9, received", classes])]):
            return {"images": tf.identity(classes)}

    asked = AskedModel(lambda _: sample_class.get_concrete_function(), ["sample_class"], "", None, "")
    assert asked.ask("sample_class", classes=np.int32([9]))["images"].tolist() == [9]
    with pytest.raises(UserError, match=r"^sample_class: \[at most 9, received\] \[12\]"):
        asked.ask("sample_class", classes=np.int32([12]))
