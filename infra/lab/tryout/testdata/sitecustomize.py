# An instance of the lab calls from its own loopback address, as Vault binds its token to it.
import os
import socket

connect = socket.create_connection


def from_own_address(address, *args, **kwargs):
    kwargs["source_address"] = (os.environ["LAB_SOURCE"], 0)
    return connect(address, *args[:1], **{k: v for k, v in kwargs.items() if k != "timeout" or not args})


socket.create_connection = from_own_address
