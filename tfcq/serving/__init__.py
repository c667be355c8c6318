"""Both ends of serving: the local server, with TF Serving's protocol, and the client."""
