"""Where the server listens: one address for gRPC, for REST and for the probe of free ports."""

import socket
import typing

from .errors import UsageError

EVERY = ("0.0.0.0", "::")  # either means every address, by IPv4 and by IPv6


class Address(typing.NamedTuple):
    """A numeric address; `family` is that of a socket that listens on it."""

    family: socket.AddressFamily
    host: str

    @classmethod
    def of(cls, host):
        """The address that --host names.

        Raises:
            UsageError: if it is empty or no address or name.
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
        return cls(family, where[0])

    def with_port(self, port):
        """host:port as gRPC takes it and messages show it."""
        return f"[{self.host}]:{port}" if self.family == socket.AF_INET6 else f"{self.host}:{port}"

    def prepare(self, listener):
        """Makes a socket of `family` listen to IPv4 too, where its address is every address."""
        if self.family == socket.AF_INET6 and self.host == "::":
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)

    def check_free(self, port):
        """Raises UsageError where nothing can listen on `port` of this address."""
        with socket.socket(self.family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.prepare(probe)
            try:
                probe.bind((self.host, port))
                probe.listen()
            except OSError as error:
                raise UsageError(f"port {port} of {self.host} cannot be used: {error.strerror}; choose another port, or"
                                 f" another --host") from error
