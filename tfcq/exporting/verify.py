"""Answers of a SavedModel in a process that knows TensorFlow and nothing of tfcq.

Run as a script by `tfcq.exporting.export`: `python verify.py MODEL_DIR INPUTS.npz OUTPUTS.npz`. Arrays are named
`signature/tensor`; every signature of the inputs is called and its outputs are written.
"""

import sys

import numpy as np


def answer(model_dir, inputs):
    """{"signature/tensor": array} that the SavedModel answers to inputs of the same form."""
    import tensorflow as tf

    signatures = tf.saved_model.load(model_dir).signatures
    outputs = {}
    for signature in sorted({name.split("/")[0] for name in inputs}):
        given = {
            name.split("/")[1]: tf.constant(value) for name, value in inputs.items() if name.startswith(signature + "/")
        }
        for name, value in signatures[signature](**given).items():
            outputs[f"{signature}/{name}"] = value.numpy()
    return outputs


def main():
    model_dir, inputs_path, outputs_path = sys.argv[1:]
    with np.load(inputs_path) as inputs:
        np.savez(outputs_path, **answer(model_dir, dict(inputs)))
    # Keras is not among them: TensorFlow imports it by itself.
    if any(name.split(".")[0] in ("tfcq", "tensorflow_probability") for name in sys.modules):
        sys.exit("the SavedModel was read in a process that had loaded more than TensorFlow")


if __name__ == "__main__":
    main()
