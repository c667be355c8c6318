"""Keeps Python's garbage collector from walking through the loaded models while requests are parsed.

TensorFlow and a loaded model are some hundred thousand objects, and a request of 1 MB of JSON makes enough lists to have all of
them looked at several times. Frozen objects are not looked at.
"""

import gc


def freeze() -> None:
    """Frees what nothing refers to; what is left is not looked at again until `collect`."""
    gc.collect()
    gc.freeze()


def collect() -> None:
    """Frees what nothing refers to any more, such as an unloaded model, among frozen objects too; what was frozen stays so."""
    frozen = gc.get_freeze_count() > 0
    gc.unfreeze()
    gc.collect()
    if frozen:
        gc.freeze()
