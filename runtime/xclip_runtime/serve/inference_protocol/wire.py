"""Protobuf messages of clients, bounded before they are parsed.

A field takes as few as two bytes on the wire, but a hundred once it is parsed, and a message may have millions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError

from xclip_runtime.errors import TensorError

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor

MAX_FIELDS = 1000
"""Maximum number of fields of a message and the messages in it, known or unknown."""

MAX_LISTED_BYTES = 40 << 20
"""Maximum size in memory of all lists of numbers of a message: a clip; more must be sent as raw contents."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_VARINT_BYTES = 10

# Bytes in memory of a number that may take one on the wire.
_GROWTH = {
    FieldDescriptor.CPPTYPE_INT64: 8,
    FieldDescriptor.CPPTYPE_UINT64: 8,
    FieldDescriptor.CPPTYPE_INT32: 4,
    FieldDescriptor.CPPTYPE_UINT32: 4,
    FieldDescriptor.CPPTYPE_ENUM: 4,
}


def parse(data: bytes, kind: Any) -> Any:
    """Parse a message.

    Raises:
        TensorError: It is invalid, or has too many fields.
    """
    budget = _Budget()
    try:
        budget.spend(memoryview(data), kind.DESCRIPTOR)
        return kind.FromString(data)
    except (DecodeError, IndexError) as error:
        message = f"the message is no valid {kind.DESCRIPTOR.name}: send one as protobuf encodes it"
        raise TensorError(message) from error


class _Budget:
    """Fields and bytes that a message may still have."""

    def __init__(self) -> None:
        self._fields = MAX_FIELDS
        self._listed = MAX_LISTED_BYTES

    def spend(self, data: memoryview, kind: Descriptor) -> None:
        """Count the fields of a message and of those in it.

        Raises:
            TensorError: They are too many.
            DecodeError, IndexError: The message is invalid.
        """
        place = 0
        while place < len(data):
            self._fields -= 1
            tag, place = _varint(data, place)
            wire = tag & 7
            if wire == _VARINT:
                _, place = _varint(data, place)
            elif wire in (_FIXED64, _FIXED32):
                place += 8 if wire == _FIXED64 else 4
            elif wire == _BYTES:
                size, place = _varint(data, place)
                if place + size > len(data):
                    raise DecodeError
                self._spend_content(data[place : place + size], kind.fields_by_number.get(tag >> 3))
                place += size
            else:
                raise DecodeError
            if self._fields < 0 or self._listed < 0:
                message = (
                    f"the message has more than {MAX_FIELDS} fields or {MAX_LISTED_BYTES} bytes of listed numbers: "
                    "send tensors as raw_input_contents"
                )
                raise TensorError(message)

    def _spend_content(self, content: memoryview, field: Any) -> None:
        if field is None:
            return
        if field.message_type is not None:
            self.spend(content, field.message_type)
        elif field.type not in (field.TYPE_BYTES, field.TYPE_STRING):
            self._listed -= len(content) * _GROWTH.get(field.cpp_type, 1)


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    """Return a number and the place behind it."""
    value = 0
    for shift in range(_VARINT_BYTES):
        byte = data[place + shift]
        value |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return value, place + shift + 1
    raise DecodeError
