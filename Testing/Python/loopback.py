"""A way between Flower's two apps inside this process: every message travels as protobuf bytes.

It stands in for SuperLink and SuperNode, whose processes test_federation_demo starts. What a site
sends is kept in `LoopbackGrid.sent`; a site may be dead (an error, as SuperLink writes for it) or
late (no answer).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

RUN = 7


class LoopbackGrid(Grid):
    """Sites by their number, each with a context of its own."""

    def __init__(self, app: ClientApp, run_config: dict[str, Any], sites: dict[int, dict]) -> None:
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, RUN, 0
        self.app = app
        self.contexts = {
            node: Context(RUN, node, dict(config), RecordDict(), dict(run_config))
            for node, config in sites.items()
        }
        self.asked: list[tuple[str, int]] = []
        self.sent: list[bytes] = []
        self.dead: set[int] = set()
        self.late: set[int] = set()
        self.measuring = True
        """Whether sites answer when they are asked to measure the model."""
        self.killed_after: int | None = None
        """Rounds of messages after which the server dies."""
        self._numbers = itertools.count(1)

    def context(self) -> Context:
        """That of the server."""
        run_config = next(iter(self.contexts.values())).run_config
        return Context(RUN, 0, {}, RecordDict(), dict(run_config))

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        asked = [
            message
            for message in messages
            if self.measuring or message.metadata.message_type != "evaluate"
        ]
        if asked and self.killed_after is not None:
            if self.killed_after == 0:
                raise KeyboardInterrupt
            self.killed_after -= 1
        answers = [self._answer(message) for message in asked]
        return [answer for answer in answers if answer is not None]

    def _answer(self, message: Message) -> Message | None:
        node = message.metadata.dst_node_id
        self.asked.append((message.metadata.message_type, node))
        message.metadata.__dict__["_message_id"] = f"m{next(self._numbers)}"
        arrived = travelled(message)
        if node in self.dead:
            return Message(Error(ErrorCode.NODE_UNAVAILABLE, "Node Unavailable"), reply_to=arrived)
        answer = self.app(arrived, self.contexts[node])
        answer.metadata.__dict__["_message_id"] = f"m{next(self._numbers)}"
        self.sent.append(message_to_proto(answer).SerializeToString())
        return None if node in self.late else travelled(answer)

    # What else Flower's class asks for; the strategies use nothing of it but the nodes.

    def get_node_ids(self) -> list[int]:
        return list(self.contexts)

    def set_run(self, run: Any) -> None: ...

    @property
    def run(self) -> Run:
        return Run.create_empty(RUN)

    def create_message(self, *_: Any, **__: Any) -> Message:
        raise NotImplementedError

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        raise NotImplementedError

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        raise NotImplementedError


def travelled(message: Message) -> Message:
    """A message after its way as bytes."""
    data = message_to_proto(message).SerializeToString()
    return message_from_proto(ProtoMessage.FromString(data))
