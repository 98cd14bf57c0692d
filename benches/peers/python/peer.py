"""The job of our model server as one writes it in Python: read images from a Kafka topic,
predict, write the predictions as JSON to another.

    peer.py --mode one     --runtime torch   one message at a time, as in a tutorial
    peer.py --mode batched --runtime torch   as much as there is, one forward pass each
    peer.py --mode batched --runtime onnx    the same on onnxruntime
    peer.py --mode batched --runtime torch-tuned   torch by one who knows its kernels well

With --count N it stops after N images and prints its figures as one JSON object. The
clock runs from the first message received until the last prediction is acknowledged.
"""

import argparse
import io
import json
import os
import sys
import time
import uuid
from pathlib import Path

import numpy
from confluent_kafka import Consumer, KafkaException, Producer
from PIL import Image

from runtimes import RUNTIMES, load

ROOT = Path(__file__).resolve().parents[3]
RAW = b"application/octet-stream"
SIDE = 28
POLL_SECONDS = 1.0
# A batch that is not full leaves after this wait.
BATCH_SECONDS = 0.02
# What each runtime was fastest with, of 32, 64, 128, 256 and 500.
BATCH = {"torch": 64, "torch-tuned": 128, "onnx": 500}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--brokers", default=os.environ.get("FOREBAY_TEST_KAFKA"), help="host:port, default $FOREBAY_TEST_KAFKA")
    parser.add_argument("--input", default="images", help="topic of the images")
    parser.add_argument("--output", default="predictions", help="topic of the predictions")
    parser.add_argument("--group", default=f"peer-{uuid.uuid4()}", help="consumer group, default a new one")
    parser.add_argument("--mode", choices=["one", "batched"], required=True)
    parser.add_argument("--runtime", choices=RUNTIMES, required=True)
    parser.add_argument("--batch", type=int, help=f"most images of a batch, default {BATCH}")
    parser.add_argument("--threads", type=int, default=2, help="threads of the runtime, default 2")
    parser.add_argument("--count", type=int, help="stop after that many images, default never")
    parser.add_argument("--model", default=ROOT / "modelling/models/mnist-cnn", help="folder of the model's files")
    parser.add_argument("--version", default="1", help="the model's version, as predictions name it")
    given = parser.parse_args()
    if not given.brokers:
        parser.error("--brokers is missing, and so is $FOREBAY_TEST_KAFKA")
    return given


def decode(message, headers):
    """The message's image as float32 [1, 28, 28] between 0 and 1."""
    if headers.get("content-type") == RAW:
        image = numpy.frombuffer(message.value(), numpy.uint8).reshape(SIDE, SIDE)
    else:
        picture = Image.open(io.BytesIO(message.value())).convert("L")
        image = numpy.asarray(picture.resize((SIDE, SIDE)))
    return image.astype(numpy.float32)[None] / 255


class Peer:
    def __init__(self, given):
        self.predict, self.digest = load(given.runtime, given.model, given.threads)
        self.model = {"name": Path(given.model).name, "version": given.version, "digest": self.digest}
        self.output = given.output
        self.count = given.count or sys.maxsize
        self.images = 0
        self.first = None
        self.cpu = None
        self.consumer = Consumer({
            "bootstrap.servers": given.brokers,
            "group.id": given.group,
            "auto.offset.reset": "earliest",
        })
        self.producer = Producer({"bootstrap.servers": given.brokers})
        self.consumer.subscribe([given.input])

    def checked(self, messages):
        """Those that are messages; the clock starts with the first."""
        if messages and self.first is None:
            self.first, self.cpu = time.time(), time.process_time()
        for message in messages:
            if message.error():
                raise KafkaException(message.error())
        return messages[: self.count - self.images]

    def handle(self, messages):
        received = time.perf_counter()
        headers = [dict(message.headers() or []) for message in messages]
        batch = numpy.stack([decode(*pair) for pair in zip(messages, headers)])
        started = time.perf_counter()
        probabilities = self.predict(batch)
        computed = time.perf_counter()
        times = {"queued": started - received, "computing": computed - started}
        for message, head, row in zip(messages, headers, probabilities.tolist()):
            self.produce(message, head, row, times | {"total": time.perf_counter() - received})
        self.images += len(messages)

    def produce(self, message, headers, probabilities, times):
        """Waits while the producer's queue is full, as its documentation says to."""
        source = {"topic": message.topic(), "partition": message.partition(), "offset": message.offset()}
        identity = headers.get("id") or ":".join(map(str, source.values())).encode()
        label = max(range(len(probabilities)), key=probabilities.__getitem__)
        result = {
            "id": identity.decode(),
            "model": self.model,
            "source": source,
            "outputs": {"label": label, "probability": probabilities[label], "probabilities": probabilities},
            "timings": {f"{name}_us": round(seconds * 1e6) for name, seconds in times.items()},
        }
        while True:
            try:
                self.producer.produce(self.output, json.dumps(result), message.key(), headers=[("id", identity)])
                break
            except BufferError:
                self.producer.poll(POLL_SECONDS)
        self.producer.poll(0)

    def run_one(self):
        while self.images < self.count:
            message = self.consumer.poll(POLL_SECONDS)
            if message is not None:
                self.handle(self.checked([message]))

    def run_batched(self, size):
        while self.images < self.count:
            messages = self.checked(self.consumer.consume(size, BATCH_SECONDS))
            if messages:
                self.handle(messages)

    def finish(self):
        self.producer.flush()
        last, cpu = time.time(), time.process_time()
        self.consumer.close()
        seconds = last - self.first
        return {
            "images": self.images,
            "seconds": round(seconds, 6),
            "images_per_second": round(self.images / seconds, 1),
            "cpu_seconds": round(cpu - self.cpu, 6),
            "first": self.first,
            "last": last,
        }


def main():
    given = arguments()
    peer = Peer(given)
    if given.mode == "one":
        peer.run_one()
    else:
        peer.run_batched(given.batch or BATCH[given.runtime])
    print(json.dumps(peer.finish()))


if __name__ == "__main__":
    main()
