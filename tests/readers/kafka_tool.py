"""Topics and messages of a Kafka cluster, through a client that shares no code with Tidemill's tests of it.

kafka_tool.py BOOTSTRAP COMMAND ...  (`--help` of each command says what it takes)
"""

import argparse
import base64
import json
import sys
import time

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic

ANSWER_S = 30


def common(args):
    config = {"bootstrap.servers": args.bootstrap}
    config.update(pair.split("=", 1) for pair in args.property)
    return config


def create(args):
    config = dict(pair.split("=", 1) for pair in args.config)
    topic = NewTopic(args.topic, num_partitions=args.partitions, replication_factor=1, config=config)
    admin = AdminClient(common(args))
    admin.create_topics([topic], request_timeout=ANSWER_S)[args.topic].result()


def configure(args):
    """Sets options of a topic, and waits until the broker shows them."""
    admin = AdminClient(common(args))
    wanted = dict(pair.split("=", 1) for pair in args.config)
    entries = [ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in wanted.items()]
    for future in admin.incremental_alter_configs([ConfigResource("topic", args.topic, incremental_configs=entries)]).values():
        future.result()
    until = time.monotonic() + ANSWER_S
    while True:
        [shown] = admin.describe_configs([ConfigResource("topic", args.topic)]).values()
        if all(shown.result()[name].value == value for name, value in wanted.items()):
            return
        if time.monotonic() > until:
            sys.exit(f"topic {args.topic} does not show {wanted}")
        time.sleep(0.1)


def delete(args):
    admin = AdminClient(common(args))
    admin.delete_topics([args.topic], request_timeout=ANSWER_S)[args.topic].result()
    # The answer comes before the topic is gone from everybody's view.
    until = time.monotonic() + ANSWER_S
    while args.topic in admin.list_topics(timeout=ANSWER_S).topics:
        if time.monotonic() > until:
            sys.exit(f"topic {args.topic} is still there")


def grow(args):
    admin = AdminClient(common(args))
    admin.create_partitions([NewPartitions(args.topic, args.partitions)])[args.topic].result()


def truncate(args):
    """Deletes the messages before an offset, as retention does."""
    place = TopicPartition(args.topic, args.partition, args.before)
    admin = AdminClient(common(args))
    for future in admin.delete_records([place]).values():
        future.result()


def produce(args):
    """Sends the lines of a file: line i to partition (i + shift) modulo their number, or all to one."""
    config = {"linger.ms": 20, "compression.type": args.compression, "queue.buffering.max.messages": 200_000}
    config["message.max.bytes"] = 50_000_000
    producer = Producer(config | common(args))
    failed = []

    def delivered(error, _):
        if error is not None:
            failed.append(str(error))

    with open(args.file, "rb") as file:
        for number, line in enumerate(file):
            value = line.rstrip(b"\n")
            partition = args.partition if args.partition is not None else number % args.partitions
            extra = {}
            if args.timestamp is not None:
                extra["timestamp"] = args.timestamp
            while True:
                try:
                    producer.produce(args.topic, value, partition=partition, on_delivery=delivered, **extra)
                    break
                except BufferError:
                    producer.poll(0.1)
            producer.poll(0)
    left = producer.flush(120)
    if failed or left:
        sys.exit(f"{len(failed)} failed ({failed[:1]}), {left} were not delivered")


def produce_json(args):
    """Sends messages told as JSON lines on standard input: value, key (null or text), headers (list of pairs), partition."""
    producer = Producer({"message.max.bytes": 50_000_000} | common(args))
    for line in sys.stdin:
        told = json.loads(line)
        raw = {name: None if told.get(name) is None else told[name].encode() for name in ("value", "key")}
        headers = [(name, None if value is None else value.encode()) for name, value in told.get("headers", [])]
        producer.produce(args.topic, raw["value"], key=raw["key"], headers=headers, partition=told.get("partition", 0))
    if producer.flush(60):
        sys.exit("not all were delivered")


def produce_avro(args):
    """Sends records told as JSON lines on standard input, with Confluent's own serializer and a registry."""
    from confluent_kafka.schema_registry import SchemaRegistryClient
    from confluent_kafka.schema_registry.avro import AvroSerializer
    from confluent_kafka.serialization import MessageField, SerializationContext

    registry = SchemaRegistryClient({"url": args.registry})
    with open(args.schema) as file:
        serializer = AvroSerializer(registry, file.read())
    producer = Producer(common(args))
    for number, line in enumerate(sys.stdin):
        value = serializer(json.loads(line), SerializationContext(args.topic, MessageField.VALUE))
        producer.produce(args.topic, value, partition=number % args.partitions)
    if producer.flush(60):
        sys.exit("not all were delivered")


def consume_avro(args):
    """Prints the values of all messages that are there as JSON lines, read with Confluent's own deserializer."""
    from confluent_kafka.schema_registry import SchemaRegistryClient
    from confluent_kafka.schema_registry.avro import AvroDeserializer
    from confluent_kafka.serialization import MessageField, SerializationContext

    deserializer = AvroDeserializer(SchemaRegistryClient({"url": args.registry}))
    for message in messages(args):
        value = deserializer(message.value(), SerializationContext(args.topic, MessageField.VALUE))
        print(json.dumps(value, default=str))


def messages(args):
    """All messages that are there now and committed, partition by partition."""
    config = {"group.id": "kafka-tool", "enable.auto.commit": False, "enable.partition.eof": True}
    consumer = Consumer(config | {"isolation.level": "read_committed"} | common(args))
    partitions = consumer.list_topics(args.topic, timeout=ANSWER_S).topics[args.topic].partitions
    for partition in sorted(partitions):
        low, _ = consumer.get_watermark_offsets(TopicPartition(args.topic, partition), timeout=ANSWER_S)
        consumer.assign([TopicPartition(args.topic, partition, low)])
        while True:
            message = consumer.poll(ANSWER_S)
            if message is None:
                sys.exit(f"partition {partition}: nothing came within {ANSWER_S} s")
            # Behind the last message are the marks of transactions, so that its offset does not tell.
            if message.error() and message.error().code() == KafkaError._PARTITION_EOF:
                break
            if message.error():
                raise KafkaException(message.error())
            yield message
    consumer.close()


def consume(args):
    """Prints all messages that are there as JSON lines; bytes that are no text in base64."""

    def text(value):
        if value is None:
            return None
        try:
            return value.decode()
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(value).decode()}

    for message in messages(args):
        record = {"partition": message.partition(), "offset": message.offset(), "timestamp": message.timestamp()[1]}
        record |= {"key": text(message.key()), "value": text(message.value())}
        record["headers"] = [[name, text(value)] for name, value in message.headers() or []]
        print(json.dumps(record))


def offsets(args):
    """Prints the committed offsets of a group as JSON: partition to offset."""
    admin = AdminClient(common(args))
    future = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(args.group)])
    found = future[args.group].result().topic_partitions
    print(json.dumps({f"{place.topic}/{place.partition}": place.offset for place in found}))


def join(args):
    """Joins a group as any consumer does, and stays until it is killed."""
    consumer = Consumer({"group.id": args.group, "auto.offset.reset": "earliest"} | common(args))
    consumer.subscribe([args.topic], on_assign=lambda _, places: print("assigned", len(places), flush=True))
    while True:
        consumer.poll(1)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("bootstrap")
    parser.add_argument("--property", action="append", default=[])
    commands = parser.add_subparsers(required=True)

    def command(function, *arguments):
        added = commands.add_parser(function.__name__.replace("_", "-"), help=function.__doc__)
        added.set_defaults(function=function)
        for name, options in arguments:
            added.add_argument(name, **options)

    number = {"type": int, "required": True}
    topic = ("topic", {})
    command(create, topic, ("--partitions", number), ("--config", {"action": "append", "default": []}))
    command(configure, topic, ("--config", {"action": "append", "default": []}))
    command(delete, topic)
    command(grow, topic, ("--partitions", number))
    command(truncate, topic, ("--partition", number), ("--before", number))
    command(
        produce,
        topic,
        ("file", {}),
        ("--partitions", {"type": int, "default": 1}),
        ("--partition", {"type": int}),
        ("--compression", {"default": "none"}),
        ("--timestamp", {"type": int}),
    )
    command(produce_json, topic)
    registry = ("--registry", {"required": True})
    command(
        produce_avro, topic, registry, ("--schema", {"required": True}), ("--partitions", {"type": int, "default": 1})
    )
    command(consume_avro, topic, registry)
    command(consume, topic)
    command(offsets, ("group", {}))
    command(join, topic, ("group", {}))
    args = parser.parse_args()
    args.function(args)


main()
