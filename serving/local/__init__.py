"""A Python server of TF Serving's protocol (gRPC and REST), for machines without TF Serving's binary.

`serving/local_server.py` is its command. It stands on TensorFlow, tensorflow-serving-api, gRPC and absl alone: a
server needs no library of the model that it serves.
"""
