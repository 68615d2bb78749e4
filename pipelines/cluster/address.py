"""Whether a Ray cluster answers at an address: Ray itself tries for minutes, or ends the process."""

from __future__ import annotations

import os
import socket

import grpc

from pipelines.config import ConfigError

_SECONDS = 10


def answers(address: str) -> bool:
    """Whether a cluster answers at `address`, as in `require_answer`."""
    try:
        require_answer(address)
    except ConfigError:
        return False
    return True


def require_answer(address: str) -> None:
    """Check a cluster's `address` in RAY_ADDRESS: `HOST:PORT` of its head, or `ray://HOST:PORT`.

    Raises:
        ConfigError: if it is of another kind, or no Ray answers there.
    """
    way_out = "start the cluster, or unset RAY_ADDRESS for a local Ray"
    scheme, _, rest = address.rpartition("://")
    if scheme in ("http", "https"):
        raise ConfigError(
            f"RAY_ADDRESS={address} is a job server: set RAY_API_SERVER_ADDRESS to it, and use dpt submit"
        )
    host, colon, port = rest.strip("[]/").rpartition(":")
    if scheme not in ("", "ray") or not (host and colon and port.isdigit() and 0 < int(port) < 65536):
        raise ConfigError(
            f"RAY_ADDRESS={address}: expected HOST:PORT of a cluster's head, such as 10.0.0.1:6379"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS).close()
    except OSError as error:
        raise ConfigError(f"no Ray answers at RAY_ADDRESS={address} ({error}): {way_out}") from error
    if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
        return  # what is there is found with its certificates, by Ray
    with grpc.insecure_channel(f"{host}:{port}") as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=_SECONDS)
        except grpc.FutureTimeoutError as error:
            raise ConfigError(f"RAY_ADDRESS={address}: what answers there is not Ray: {way_out}") from error
