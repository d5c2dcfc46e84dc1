from __future__ import annotations

import socket

import pytest

from demo import jvm
from demo.jvm import HOST, PORTS, accepts_connections, free_ports


def test_free_ports_differ_are_free_and_lie_below_those_of_outgoing_connections() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert set(ports) <= set(PORTS)
    for port in ports:
        assert not accepts_connections(port)


def test_a_listening_port_accepts_connections_and_is_not_free() -> None:
    (port,) = free_ports(1)
    with socket.create_server((HOST, port)):
        assert accepts_connections(port)
    assert not accepts_connections(port)


def test_a_taken_port_is_not_given_out(monkeypatch: pytest.MonkeyPatch) -> None:
    taken, free = free_ports(2)
    monkeypatch.setattr(jvm, "PORTS", (taken, free))
    with socket.create_server((HOST, taken)):
        assert free_ports(1) == (free,)
