"""A store of objects, such as Cloud Storage, in the place of ram://: TensorFlow's functions without what such a store lacks."""

import contextlib
import io

import tensorflow as tf


class Pieces:
    """A file that is read in pieces of a given size. Its whole size is not asked for: TensorFlow may remember an old one."""

    def __init__(self, content):
        self._content = io.BytesIO(content)

    def read(self, size):
        return self._content.read(size)


class ObjectStore:
    """What `tfcq.machine.remote` calls of tf.io.gfile. Anything else, such as renaming, fails.

    Files appear whole when their upload ends. Folders are beginnings of names: there is nothing to make or to find empty.

    Attributes:
        uploads: the names of the files that were written, in order.
        broken: raised instead of the next upload; None: nothing.
    """

    def __init__(self):
        self.uploads, self.broken = [], None

    def __getattr__(self, name):
        raise AssertionError(f"an object store has no {name}")

    @contextlib.contextmanager
    def GFile(self, path, mode):
        assert mode in ("rb", "wb"), mode
        if mode == "rb":
            with tf.io.gfile.GFile(path, "rb") as file:
                yield Pieces(file.read())
        else:
            content = io.BytesIO()
            yield content
            self._put(path, content.getvalue())

    def copy(self, source, path):
        assert "://" not in source and not self.exists(path)
        with open(source, "rb") as file:
            self._put(path, file.read())

    def _put(self, path, data):
        if self.broken:
            raise self.broken
        if self._is_file(path):
            tf.io.gfile.remove(path)
        tf.io.gfile.makedirs(path.rpartition("/")[0])  # TensorFlow's ram:// lists only folders that were made
        with tf.io.gfile.GFile(path, "wb") as file:
            file.write(data)
        self.uploads.append(path)

    def _is_file(self, path):
        return tf.io.gfile.exists(path) and not tf.io.gfile.isdir(path)

    def isdir(self, path):
        return tf.io.gfile.isdir(path) and any(names for _, _, names in tf.io.gfile.walk(path))

    def exists(self, path):
        return self._is_file(path) or self.isdir(path)

    def listdir(self, path):
        if not self.isdir(path):
            raise tf.errors.NotFoundError(None, None, f"Could not find directory {path}")
        names = tf.io.gfile.listdir(path)
        folders = [f"{name}/" for name in names if self.isdir(f"{path}/{name}")]
        return folders + [name for name in names if self._is_file(f"{path}/{name}")]

    def walk(self, path):
        return tf.io.gfile.walk(path)

    def stat(self, path):
        return tf.io.gfile.stat(path)

    def makedirs(self, path):
        pass  # asked for before a file is written to ram://; a folder without files is nothing

    def remove(self, path):
        if not self._is_file(path):
            raise tf.errors.NotFoundError(None, None, path)
        tf.io.gfile.remove(path)

    def rmtree(self, path):
        if not self.exists(path):
            raise tf.errors.NotFoundError(None, None, path)
        tf.io.gfile.rmtree(path)
