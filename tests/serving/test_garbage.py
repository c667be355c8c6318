"""The garbage collector of a server with loaded models."""

import gc
import weakref

from tfcq.serving.server import garbage


def test_what_the_collector_does_not_look_at_is_freed_when_models_go():
    class Node:
        pass

    node = Node()
    node.itself, reference = node, weakref.ref(node)
    try:
        garbage.freeze()
        del node
        gc.collect()
        assert reference() is not None
        garbage.collect()
        assert reference() is None and gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
    garbage.collect()
    assert gc.get_freeze_count() == 0  # only where `freeze` was called
