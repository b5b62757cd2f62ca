"""Writes a model that fills every field of every message, and the same with unknown fields in each message.

    make_full.py FULL UNKNOWN
"""

import pathlib
import sys

import onnx
from google.protobuf.descriptor import FieldDescriptor as F

FIELDS = 0
MESSAGES = 0


def unknown(number: int) -> bytes:
    """One field of every wire type, none of them in the schema."""
    key = lambda field, wire: varint(field << 3 | wire)
    text = f"message {number}".encode()
    return b"".join([
        key(9001, 0) + varint(number),
        key(9002, 1) + number.to_bytes(8, "little"),
        key(9003, 2) + varint(len(text)) + text,
        key(9004, 3) + key(1, 0) + varint(number) + key(9005, 3) + key(9005, 4) + key(9004, 4),
        key(536870911, 5) + number.to_bytes(4, "little"),
    ])


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def scalar(field):
    global FIELDS
    FIELDS += 1
    if field.type in (F.TYPE_FLOAT, F.TYPE_DOUBLE):
        return FIELDS / 8
    if field.type == F.TYPE_STRING:
        return f"text {FIELDS} – ä"
    if field.type == F.TYPE_BYTES:
        return bytes([FIELDS % 256, 255, 0])
    if field.type == F.TYPE_ENUM:
        return field.enum_type.values[-1].number
    return FIELDS


def fill(message, path, choice=0):
    """Sets all fields; of a oneof the one that `choice` picks. A type inside itself gets its scalars only."""
    name = message.DESCRIPTOR.full_name
    for field in message.DESCRIPTOR.fields:
        oneof = field.containing_oneof
        if oneof and oneof.fields[choice % len(oneof.fields)] is not field:
            continue
        if field.type != F.TYPE_MESSAGE:
            if field.is_repeated:
                getattr(message, field.name).extend([scalar(field), scalar(field)])
            else:
                setattr(message, field.name, scalar(field))
            continue
        if field.message_type.full_name in path:
            if not field.is_repeated:
                getattr(message, field.name).SetInParent()
            continue
        if field.is_repeated:
            choices = max([len(o.fields) for o in field.message_type.oneofs], default=1)
            for c in range(choices):
                fill(getattr(message, field.name).add(), path | {name}, c)
        else:
            fill(getattr(message, field.name), path | {name}, choice)
            getattr(message, field.name).SetInParent()


def add_unknown(message):
    global MESSAGES
    MESSAGES += 1
    for field, value in message.ListFields():
        if field.type == F.TYPE_MESSAGE:
            for inner in value if field.is_repeated else [value]:
                add_unknown(inner)
    number = MESSAGES
    message.MergeFromString(unknown(number))


model = onnx.ModelProto()
fill(model, set())
# The data of no tensor lies outside.
def inside(message):
    for field, value in message.ListFields():
        if field.name == "data_location":
            message.data_location = onnx.TensorProto.DEFAULT
        if field.type == F.TYPE_MESSAGE:
            for inner in value if field.is_repeated else [value]:
                inside(inner)
inside(model)
pathlib.Path(sys.argv[1]).write_bytes(model.SerializeToString(deterministic=True))
add_unknown(model)
pathlib.Path(sys.argv[2]).write_bytes(model.SerializeToString(deterministic=True))
print(FIELDS, MESSAGES)
