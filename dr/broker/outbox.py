"""Collects the commands of one event. Knows the short forms that all of the broker uses, and decides nothing."""

from __future__ import annotations

from dr.broker.commands import Command, Notify, Send, Topic
from dr.broker.fleet import Server
from dr.protocol.envelope import Payload
from dr.protocol.messages import ClientMessage


class Outbox:
    """The commands so far, in the order in which the loop must carry them out."""

    def __init__(self) -> None:
        self._commands: list[Command] = []

    def add(self, command: Command) -> None:
        self._commands.append(command)

    def send(self, server: Server, message: ClientMessage, payload: Payload = ()) -> None:
        self.add(Send(server.peer, message, payload))

    def notify(self, topic: Topic, text: str, server: Server | None = None) -> None:
        name, endpoint = (server.name, server.endpoint) if server else ("", "")
        self.add(Notify(topic, text, name, endpoint))

    def take(self) -> list[Command]:
        commands, self._commands = self._commands, []
        return commands
