"""Publishes, fetches and subscribes with stock gRPC; the modules imported below are made from proto/ (see README.md beside this file)."""

import os

import grpc

import broker_pb2
import broker_pb2_grpc
from broker.v1 import producer_pb2, producer_pb2_grpc, record_pb2

with grpc.insecure_channel(os.environ.get("BROKER_ADDRESS", "127.0.0.1:8081")) as channel:
    stub = broker_pb2_grpc.BrokerStub(channel)
    first = stub.Publish(broker_pb2.PublishRequest(subject="python", body=b"one")).id

    records = record_pb2.Records(records=[record_pb2.Record(body=body) for body in (b"two", b"three")])
    requests = [
        producer_pb2.PublishStreamRequest(open=producer_pb2.ProducerOpen(producer_id=os.urandom(8).hex())),
        producer_pb2.PublishStreamRequest(batches=[producer_pb2.Batch(subject="python", sequence=1, records=records)]),
    ]
    for response in producer_pb2_grpc.ProducerStub(channel).PublishStream(iter(requests)):
        for result in response.results:
            print(f"stored {result.first_id - first} to {result.last_id - first} behind the first")

    messages = stub.Subscribe(broker_pb2.SubscribeRequest(subject="python", id=first))
    print([next(messages).body.decode() for _ in range(3)])
    messages.cancel()

    try:
        stub.Fetch(broker_pb2.FetchRequest(subject="python", id=first + 1000))
    except grpc.RpcError as error:
        print(error.code().name)
