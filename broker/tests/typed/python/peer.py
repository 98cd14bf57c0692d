"""Confluent's own serializers, to be held against ours.

    peer.py write REGISTRY TOPIC            prints one line of JSON for each payload it wrote
    peer.py read REGISTRY TOPIC < PAYLOADS  prints the value of each payload it read

A payload is {"codec": NAME, "payload": HEX}. The codecs stand in CODECS below.
"""

import json
import sys

from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONDeserializer, JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer, ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

AVRO = json.dumps({
    "type": "record", "name": "Order", "namespace": "shop",
    "fields": [
        {"name": "id", "type": "int"},
        {"name": "note", "type": ["null", "string"], "default": None},
        {"name": "prices", "type": {"type": "array", "items": "double"}},
    ],
})

# What an older publisher knew: no note, one field more, in another order.
AVRO_OLD = json.dumps({
    "type": "record", "name": "Order", "namespace": "shop",
    "fields": [
        {"name": "prices", "type": {"type": "array", "items": "double"}},
        {"name": "till", "type": "string", "default": ""},
        {"name": "id", "type": "int"},
    ],
})

JSON_SCHEMA = json.dumps({
    "$schema": "http://json-schema.org/draft-07/schema#",
    "title": "Order", "type": "object",
    "properties": {
        "id": {"type": "integer"},
        "note": {"type": ["string", "null"]},
        "prices": {"type": "array", "items": {"type": "number"}},
    },
    "required": ["id"],
})

ORDER = {"id": 7, "note": "Grüße", "prices": [1.5, -2.0]}


def protobuf_classes():
    """The messages shop.Refund, shop.Order and shop.Order.Line, as protoc would give them."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="order.proto", package="shop", syntax="proto3")
    refund = file.message_type.add(name="Refund")
    refund.field.add(name="order", number=1, type=field.TYPE_INT32, label=field.LABEL_OPTIONAL)
    order = file.message_type.add(name="Order")
    order.field.add(name="id", number=1, type=field.TYPE_INT32, label=field.LABEL_OPTIONAL)
    order.field.add(name="note", number=2, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    order.field.add(name="prices", number=3, type=field.TYPE_DOUBLE, label=field.LABEL_REPEATED)
    line = order.nested_type.add(name="Line")
    line.field.add(name="item", number=1, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    names = ["shop.Refund", "shop.Order", "shop.Order.Line"]
    return [message_factory.GetMessageClass(pool.FindMessageTypeByName(name)) for name in names]


REFUND, PROTO_ORDER, LINE = protobuf_classes()


def protobuf(registry, kind, value):
    """Writes `value` as a message of `kind`, and reads it.

    Reading asks no registry: it would ask for a descriptor in base64, which Apicurio does not give.
    """
    options = {"use.deprecated.format": False}
    deserializer = ProtobufDeserializer(kind, options)
    return (
        lambda ctx: ProtobufSerializer(kind, registry, options)(kind(**value), ctx),
        lambda payload, ctx: json_format.MessageToDict(
            deserializer(payload, ctx), preserving_proto_field_name=True),
    )


def codecs(registry):
    """How each codec writes the example, and reads a payload."""
    return {
        "avro": (
            lambda ctx: AvroSerializer(registry, AVRO)(ORDER, ctx),
            AvroDeserializer(registry, AVRO),
        ),
        "avro-old": (
            lambda ctx: AvroSerializer(registry, AVRO_OLD)(
                {"id": 7, "till": "3", "prices": ORDER["prices"]}, ctx),
            AvroDeserializer(registry, AVRO_OLD),
        ),
        "json": (
            lambda ctx: JSONSerializer(JSON_SCHEMA, registry)(ORDER, ctx),
            JSONDeserializer(JSON_SCHEMA, schema_registry_client=registry),
        ),
        "protobuf": protobuf(registry, PROTO_ORDER, ORDER),
        "protobuf-first": protobuf(registry, REFUND, {"order": 7}),
        "protobuf-nested": protobuf(registry, LINE, {"item": "tea"}),
    }


def context(topic, codec):
    """Each codec has a topic of its own, since subjects hold one kind of schema."""
    return SerializationContext(f"{topic}-{codec}", MessageField.VALUE)


def main():
    command, url, topic = sys.argv[1:]
    # Apicurio leaves a request unanswered at times; without a timeout the test would hang on it.
    known = codecs(SchemaRegistryClient({"url": url, "timeout": 5}))
    if command == "write":
        for name, (write, _) in known.items():
            payload = write(context(topic, name))
            print(json.dumps({"codec": name, "payload": payload.hex()}))
        return
    for line in sys.stdin:
        given = json.loads(line)
        _, read = known[given["codec"]]
        value = read(bytes.fromhex(given["payload"]), context(topic, given["codec"]))
        print(json.dumps({"codec": given["codec"], "value": value}))


main()
