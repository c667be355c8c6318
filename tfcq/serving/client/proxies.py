"""Proxies in environment variables (http_proxy and similar ones), for the client: when they are bypassed, and their names.

A server on this machine is asked directly, whatever the environment says: a proxy would look for it on its own machine. For
other machines REST looks where Python's `urllib` does (http_proxy, https_proxy, no_proxy; not all_proxy, and no SOCKS), and gRPC
has rules of its own (grpc_proxy, https_proxy, http_proxy; no_grpc_proxy, no_proxy).
"""

import ipaddress
import os
import re
import urllib.parse
import urllib.request

from tfcq.errors import UserError


def is_here(host: str) -> bool:
    """Whether a host's name or address is this machine's loopback, such as localhost, 127.0.0.1 and ::1."""
    host = host.strip("[]").rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified


def of_rest(url: str) -> str | None:
    """The proxy through which REST asks a URL, as "VARIABLE=PROXY"; None if it asks directly."""
    proxy = for_rest(url)
    return proxy and f"{urllib.parse.urlsplit(url).scheme}_proxy={_without_password(proxy)}"


def for_rest(url: str) -> str | None:
    """The URL of that proxy, with its user and password, if it has them.

    Raises:
        UserError: it is not a proxy of HTTP.
        ValueError: `url` is none.
    """
    parts = urllib.parse.urlsplit(url)
    if is_here(parts.hostname or "") or urllib.request.proxy_bypass(parts.netloc):
        return None
    proxy = urllib.request.getproxies().get(parts.scheme)
    if not proxy:
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    given = urllib.parse.urlsplit(proxy)
    if given.scheme not in ("http", "https") or not given.hostname:
        raise UserError(
            f"{parts.scheme}_proxy: expected http://HOST:PORT, received {_without_password(proxy)!r}; no_proxy={parts.hostname} "
            "asks the server directly"
        )
    return proxy


def of_grpc(address: str) -> str | None:
    """The proxy through which gRPC asks an address, as "VARIABLE=PROXY"; None if it asks directly."""
    host = grpc_host(address)
    if is_here(host):
        return None
    bypassed = os.environ.get("no_grpc_proxy") or os.environ.get("no_proxy") or ""
    if any(name.strip() and host.endswith(name.strip()) for name in bypassed.split(",")):
        return None
    given = [name for name in ("grpc_proxy", "https_proxy", "http_proxy") if os.environ.get(name)]
    return f"{given[0]}={_without_password(os.environ[given[0]])}" if given else None


def grpc_host(address: str) -> str:
    """The host of "host:port", "[::1]:port", "ipv4:host:port" and similar forms; localhost for a socket in the file system."""
    if address.startswith(("unix:", "unix-abstract:")):
        return "localhost"
    address = re.sub(r"^(dns|ipv4|ipv6):", "", address)
    return address[1:].partition("]")[0] if address.startswith("[") else address.rpartition(":")[0] or address


def _without_password(proxy):
    return re.sub(r"//[^/@]*@", "//", proxy)
