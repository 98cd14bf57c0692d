"""Fills a Kafka topic with MNIST test images: 784 raw bytes each, with key and id."""

import argparse
import gzip
import os
import sys
import time
from pathlib import Path

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

ROOT = Path(__file__).resolve().parents[3]
HEADER_BYTES = 16
IMAGE_BYTES = 28 * 28
POLL_SECONDS = 1.0


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--brokers", default=os.environ.get("FOREBAY_TEST_KAFKA"), help="host:port, default $FOREBAY_TEST_KAFKA")
    parser.add_argument("--topic", default="images")
    parser.add_argument("--count", type=int, default=10_000, help="images, beginning again after the 10,000th")
    parser.add_argument("--partitions", type=int, default=1, help="of topics that are made")
    parser.add_argument("--run", default="load", help="first part of every id")
    parser.add_argument("--also", nargs="*", default=[], metavar="TOPIC", help="topics to make and leave empty")
    given = parser.parse_args()
    if not given.brokers:
        parser.error("--brokers is missing, and so is $FOREBAY_TEST_KAFKA")
    return given


def mnist():
    folder = Path(os.environ.get("FOREBAY_DATA", ROOT.parent / "shared/data")) / "mnist"
    with gzip.open(folder / "t10k-images-idx3-ubyte.gz") as file:
        pixels = file.read()[HEADER_BYTES:]
    return [pixels[at : at + IMAGE_BYTES] for at in range(0, len(pixels), IMAGE_BYTES)]


def make_topics(brokers, names, partitions):
    topics = [NewTopic(name, partitions, 1) for name in names]
    admin = AdminClient({"bootstrap.servers": brokers, "log_level": 4})  # Its end would cancel what it was asked.
    for made in admin.create_topics(topics).values():
        try:
            made.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise


def publish(given, images):
    """Publishes all of them, returns how many the broker refused."""
    refused = 0

    def delivered(error, _):
        nonlocal refused
        refused += error is not None

    producer = Producer({"bootstrap.servers": given.brokers, "linger.ms": 20, "batch.size": 1 << 20})
    for index in range(given.count):
        headers = [("id", f"{given.run}-{index}"), ("content-type", "application/octet-stream")]
        while True:
            try:
                producer.produce(given.topic, images[index % len(images)], str(index), headers=headers, on_delivery=delivered)
                break
            except BufferError:
                producer.poll(POLL_SECONDS)
        producer.poll(0)
    producer.flush()
    return refused


def main():
    given = arguments()
    make_topics(given.brokers, [given.topic, *given.also], given.partitions)
    started = time.perf_counter()
    refused = publish(given, mnist())
    rate = given.count / (time.perf_counter() - started)
    print(f"{given.count - refused} images in {given.topic}, {rate:.0f} a second", file=sys.stderr)
    if refused:
        sys.exit(f"the broker refused {refused} of {given.count} images")


if __name__ == "__main__":
    main()
