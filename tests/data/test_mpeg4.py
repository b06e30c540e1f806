import pytest

from videomae_jax.data.mpeg4 import frame_numbers, pictures

INTRA, P, B = ((0, 900),), ((1, 500),), ((2, 100),)
PLACE_HOLDER = ((1, 6),)
PACKED_HEADER = b"\0\0\x01\xb2DivX503b1393p\0\0\x01\xb2XviD0074"


def test_pictures_of_a_packet():
    picture = b"\0\0\x01\xb6"
    packet = b"\0\0\x01\xb3ab" + picture + b"\x10" + bytes(5) + picture + b"\x90a"
    assert pictures(packet) == ((0, 10), (2, 6))
    assert pictures(b"") == pictures(b"abcd") == pictures(picture) == ()


def test_b_frames_come_before_what_they_follow():
    numbers = frame_numbers(b"", [INTRA, P, B, B, P, P, B, INTRA])
    assert numbers == [(0, True), (3, False), (1, False), (2, False), (4, False), (6, False), (5, False), (7, True)]


def test_packed_frames_are_decoded_one_packet_later():
    packets = [INTRA, P + B, PLACE_HOLDER, P + B, B, PLACE_HOLDER, P + B]
    numbers = frame_numbers(PACKED_HEADER, packets)
    assert [number for number, _ in numbers] == [0, 2, 1, 5, 3, 4, 6]


@pytest.mark.parametrize(
    ("header", "packets"),
    [
        (b"", []),
        (b"", [P, P]),
        (b"", [INTRA, B, P]),
        (b"", [INTRA, P + B, PLACE_HOLDER]),
        (PACKED_HEADER, [INTRA, P + P, PLACE_HOLDER]),
        (PACKED_HEADER, [INTRA, P + B, P]),
        (PACKED_HEADER, [INTRA, P + B, ((2, 15),)]),
        (b"", [INTRA, PLACE_HOLDER, P]),
        (b"", [INTRA, (), P]),
    ],
)
def test_where_only_decoding_tells(header, packets):
    assert frame_numbers(header, packets) is None
