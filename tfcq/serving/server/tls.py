"""Encryption of the gRPC API: TF Serving's --ssl_config_file."""

from __future__ import annotations

import os
import ssl
from typing import Any

import grpc

from . import text_protos
from .errors import UsageError


def server_credentials(path: str) -> grpc.ServerCredentials:
    """The credentials that an SSLConfig in protobuf's text format describes; its key and certificates are texts in PEM.

    Raises:
        UsageError: if the file cannot be read, is not an SSLConfig, or its key and certificate do not belong together.
    """
    given_as = f"--ssl_config_file={path}"
    config: Any = text_protos.read(path, given_as, text_protos.message_class("SSLConfig", text_protos.SSL_CONFIG)())
    missing = [name for name in ("server_key", "server_cert") if not getattr(config, name)]
    if config.client_verify and not config.custom_ca:
        missing.append("custom_ca (client_verify needs it)")
    if missing:
        raise UsageError(f"{given_as}: expected texts in PEM, received no {', no '.join(missing)}")
    _check_pair(config.server_key, config.server_cert, given_as)
    pairs = [(config.server_key.encode(), config.server_cert.encode())]
    return grpc.ssl_server_credentials(pairs, config.custom_ca.encode() or None, config.client_verify)


def _check_pair(key, certificate, given_as):
    """Raises UsageError if Python does not accept the pair; gRPC would say so only where a port is bound, in lines of its own.

    Python reads files alone: this one is in memory, where the system has such files.
    """
    if not hasattr(os, "memfd_create"):
        return
    descriptor = os.memfd_create("pair")
    try:
        with open(descriptor, "w", encoding="utf-8", closefd=False) as file:
            file.write(f"{key}\n{certificate}\n")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}", password=lambda: "")
    except (ssl.SSLError, ValueError) as error:
        raise UsageError(
            f"{given_as}: server_key and server_cert cannot be used ({error}); expected a private key without a password and its "
            "certificate in PEM, the texts themselves (no names of files), with \\n at the ends of lines"
        ) from error
    finally:
        os.close(descriptor)
