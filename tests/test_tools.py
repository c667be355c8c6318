"""Tools by themselves: what they hand on. Their work is tested where it is done."""

import pathlib
import subprocess
import sys

REPOSITORY = pathlib.Path(__file__).parents[1]

ASK = """
import numpy as np
import tfcq
from tfcq.command_line import starting
from tfcq.serving import client

class Stub:
    model = "cqf"
    image_shape = (4, 4, 1)
    def images(self, split, indices): return np.zeros((len(indices), 4, 4, 1), np.uint8)
    def sample(self, count): return self.images("", range(count))
    def bits_per_dim(self, images): return np.full(len(images), 8.0)
    def read_config(self, folder): return self
    def load_data(self, folder, place):
        print("place", place.dataset, place.data_dir, place.accept_changed_data)
        return self

tfcq.workdir = Stub()
client.Client.grpc = client.Client.rest = lambda address, model: Stub()
starting.start_tensorflow = lambda: None
import ask_endpoints
ask_endpoints.COMMAND.run()
"""


def test_the_endpoints_of_a_run_whose_images_have_moved_can_be_asked(tmp_path):
    moved = ["--dataset=folder:/there", "--data_dir=/elsewhere", "--accept_changed_data"]
    done = subprocess.run(
        [sys.executable, "-c", ASK, f"--workdir={tmp_path}", "--grpc=localhost:1", "--rest=http://localhost:2", *moved],
        capture_output=True, text=True, cwd=REPOSITORY / "tools", env={"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tools'}"},
    )
    assert done.stderr == "" and done.stdout.startswith("place folder:/there /elsewhere True\n")
