"""Publishes to and consumes from Kafka through FastStream, as its documentation does, and prints
one JSON object: messages a second, and microseconds of this process's CPU for a message."""

import argparse
import asyncio
import json
import logging
import time

from faststream.confluent import KafkaBroker


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mode", choices=["publish", "consume"], required=True)
    parser.add_argument("--broker", required=True, help="host:port of Kafka")
    parser.add_argument("--topic", required=True)
    parser.add_argument("--group", default="")
    parser.add_argument("--messages", type=int, required=True)
    parser.add_argument("--bytes", type=int, default=0)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--in-flight", type=int, default=1)
    return parser.parse_args()


class Meter:
    def __init__(self):
        self.started, self.cpu = time.perf_counter(), time.process_time()

    def print(self, messages):
        seconds = time.perf_counter() - self.started
        cpu = time.process_time() - self.cpu
        print(json.dumps({"rate": messages / seconds, "cpu_us": cpu * 1e6 / messages}))


async def publish(given):
    payload = bytes((i * 7 + i // 13) % 256 for i in range(given.bytes))
    calls = iter(range(given.messages // given.batch))
    async with KafkaBroker(given.broker, logger=None) as broker:
        await broker.start()
        meter = Meter()

        async def work():
            for _ in calls:
                if given.batch == 1:
                    await broker.publish(payload, topic=given.topic)
                else:
                    await broker.publish_batch(*[payload] * given.batch, topic=given.topic)

        await asyncio.gather(*(work() for _ in range(given.in_flight)))
        meter.print(given.messages // given.batch * given.batch)


async def consume(given):
    broker = KafkaBroker(given.broker, logger=None)
    done, state = asyncio.Event(), {"seen": 0, "first": 0, "meter": None}

    def take(count):
        if state["meter"] is None:
            state["meter"], state["first"] = Meter(), count
        state["seen"] += count
        if state["seen"] >= given.messages:
            done.set()

    options = {"group_id": given.group, "auto_offset_reset": "earliest"}
    if given.batch == 1:

        @broker.subscriber(given.topic, **options)
        async def one(message: bytes):
            take(1)

    else:

        @broker.subscriber(given.topic, batch=True, max_records=given.batch, **options)
        async def many(messages: list[bytes]):
            take(len(messages))

    await broker.start()
    await done.wait()
    state["meter"].print(state["seen"] - state["first"])
    await broker.stop()


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    given = arguments()
    asyncio.run({"publish": publish, "consume": consume}[given.mode](given))
