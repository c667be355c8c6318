"""Answers of a SavedModel in a process that imports TensorFlow and nothing of tfcq.

Run as a script by `tfcq.exporting.export`: `python verify.py MODEL_DIR INPUTS.npz OUTPUTS.npz`. Arrays are named
`signature/tensor`; every signature of the inputs is called and its outputs are written, strings as NumPy's type S. Each
signature's name is printed before it is called.
"""

import gc
import sys
from typing import Any

import numpy as np


def answer(model_dir: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The answers of a SavedModel, {"signature/tensor": array}, to inputs of the same form."""
    import tensorflow as tf

    signatures = tf.saved_model.load(model_dir).signatures
    outputs = {}
    for signature in sorted({name.split("/")[0] for name in inputs}):
        print(signature, flush=True)
        given = {
            name.split("/")[1]: tf.constant(value) for name, value in inputs.items() if name.startswith(signature + "/")
        }
        for name, value in signatures[signature](**given).items():
            outputs[f"{signature}/{name}"] = value.numpy().astype("S") if value.dtype == tf.string else value.numpy()
    return outputs


def main() -> None:
    """Answers the arrays of INPUTS.npz into OUTPUTS.npz."""
    unused: dict[str, Any] = {"sklearn": None, "matplotlib": None}  # as in `tfcq.machine.settings.without_optional_imports`
    sys.modules.update(unused)
    gc.disable()  # what is imported and loaded stays to the end, and looking for garbage takes a quarter of the time
    model_dir, inputs_path, outputs_path = sys.argv[1:]
    with np.load(inputs_path) as inputs:
        outputs: dict[str, Any] = dict(answer(model_dir, dict(inputs)))  # Any: typeshed takes a name for savez's allow_pickle
    np.savez(outputs_path, **outputs)
    # Keras is not checked: TensorFlow imports it by itself.
    if any(name.split(".")[0] in ("tfcq", "tensorflow_probability") for name in sys.modules):
        sys.exit("the SavedModel was read in a process that had loaded more than TensorFlow")


if __name__ == "__main__":
    main()
