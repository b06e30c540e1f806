"""Which frame comes from which packet of MPEG-4 part 2 (DivX, XviD), told from a few bits, for AVI tells no times."""

import re
from collections.abc import Sequence
from itertools import pairwise

# A picture (VOP) begins with these bytes, and its coding type is in the next two bits.
_PICTURE = b"\0\0\x01\xb6"
INTRA, B = 0, 2
# A picture of so few bytes may be a header that stands for no picture. Between the two FFmpeg's rules get intricate.
_HEADER, _SHORT = 7, 19


def pictures(packet: bytes) -> tuple[tuple[int, int], ...]:
    """Coding type (0 I, 1 P, 2 B, 3 S) and number of bytes of each picture in a packet."""
    starts, start = [], packet.find(_PICTURE)
    while 0 <= start < len(packet) - len(_PICTURE):
        starts.append(start)
        start = packet.find(_PICTURE, start + len(_PICTURE))
    return tuple((packet[start + 4] >> 6, end - start) for start, end in pairwise([*starts, len(packet)]))


def frame_numbers(header: bytes, packets: Sequence[tuple[tuple[int, int], ...]]) -> list[tuple[int, bool]] | None:
    """Of the frame that FFmpeg decodes on each packet, its number in presentation order and whether it is an I-frame.

    B-frames are shown as they come, others when the next of them comes. In a packed stream one packet may hold two
    frames; the second is decoded on the next packet, a place holder or itself put off so.

    Args:
      header: what comes before the first picture.
      packets: `pictures` of each, in decoding order.

    Returns:
      None where only decoding tells.
    """
    packed, types, waiting = re.search(rb"DivX\d+(Build|b)\d+p", header), [], []
    for found in packets:
        if packed and len(found) == 2 and not waiting and found[1][0] == B:
            waiting.append(B)
            types.append(found[0][0])
            continue
        if len(found) != 1:
            return None
        ((coding_type, size),) = found
        if waiting:
            types.append(waiting.pop())
            if size > _SHORT:
                waiting.append(coding_type)
            if size > _SHORT and coding_type != B or _HEADER < size <= _SHORT:
                return None
        elif size <= _HEADER + 1:  # longer by one after a pause
            return None
        else:
            types.append(coding_type)
    # A B-frame lies between two others. What waits at the end never comes.
    if types[:1] != [INTRA] or types[1:2] == [B]:
        return None
    order, put_off = [], None
    for place, coding_type in enumerate(types):
        if coding_type == B:
            order.append(place)
            continue
        if put_off is not None:
            order.append(put_off)
        put_off = place
    order.append(put_off)
    numbers = [0] * len(order)
    for number, place in enumerate(order):
        numbers[place] = number
    return [(number, coding_type == INTRA) for number, coding_type in zip(numbers, types, strict=True)]
