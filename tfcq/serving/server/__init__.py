"""The local server, with TF Serving's protocol: `local_server` puts the two front ends before the models."""
