"""Where the server listens: one address for gRPC, for REST and for the check that ports are free."""

from __future__ import annotations

import socket
import typing

from .errors import UsageError

EVERY = ("0.0.0.0", "::")  # either means every address, IPv4 and IPv6


class Address(typing.NamedTuple):
    """A numeric address and the family of a socket that listens on it."""

    family: socket.AddressFamily
    host: str

    @classmethod
    def of(cls, host: str) -> Address:
        """The address that --host names.

        Raises:
            UsageError: if it is empty, or not an address or name.
        """
        bare = host.strip().removeprefix("[").removesuffix("]")
        if not bare:
            raise UsageError("--host must not be empty; 127.0.0.1 is this machine alone, 0.0.0.0 every address")
        if bare in EVERY:
            return cls(socket.AF_INET6, "::") if socket.has_dualstack_ipv6() else cls(socket.AF_INET, "0.0.0.0")
        try:
            family, _, _, _, where = socket.getaddrinfo(bare, None, type=socket.SOCK_STREAM)[0]
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UsageError(f"--host={host} is no address or name of this machine: {reason}") from error
        return cls(family, str(where[0]))

    def with_port(self, port: int) -> str:
        """host:port, the form for gRPC and for messages."""
        return f"[{self.host}]:{port}" if self.family == socket.AF_INET6 else f"{self.host}:{port}"

    def prepare(self, listener: socket.socket) -> None:
        """Makes a socket of `family` listen on IPv4 too, if the address means every address."""
        if self.family == socket.AF_INET6 and self.host == "::":
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)

    def check_free(self, port: int) -> None:
        """Raises UsageError if `port` of this address cannot be listened on."""
        self.listener(port).close()

    def listener(self, port: int) -> socket.socket:
        """A socket that listens on `port` of this address, 0: one that is free; UsageError if it cannot."""
        listener = socket.socket(self.family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.prepare(listener)
        try:
            listener.bind((self.host, port))
            listener.listen()
        except OSError as error:
            listener.close()
            raise UsageError(f"port {port} of {self.host} cannot be used: {error.strerror}; choose another port, or"
                             f" another --host") from error
        return listener
