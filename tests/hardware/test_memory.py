"""Formats written and read back bit by bit; formula equals encoded length; published figures."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from hardware.encodings import Encoded, EncodingError, decode, encode, index_fields, pack, unpack
from hardware.memory import Mask, WeightCoding, best_format, entropy_bound_bits, format_bits, index_bits, layouts


@st.composite
def layers(draw):
    bits = draw(st.sampled_from([1, 2, 3, 4, 8, 16, 32]))
    shape = draw(npst.array_shapes(min_dims=2, max_dims=4, max_side=7))
    codes = draw(npst.arrays(np.int64, shape, elements=st.integers(0, 2**bits - 1), fill=st.just(0)))
    return codes, bits


def through_bytes(encoded: Encoded) -> Encoded:
    """The same, packed into bytes and read back; each part takes whole bytes."""
    slots = len(encoded.values)
    fields = index_fields(encoded.format, encoded.shape, slots)
    raw = {name: pack(encoded.index[name], part.width) for name, part in fields.items()}
    assert all(raw[name].size == -(-part.bits // 8) for name, part in fields.items())
    index = {name: unpack(raw[name], part.entries, part.width) for name, part in fields.items()}
    values = unpack(pack(encoded.values, encoded.bits), slots, encoded.bits)
    return Encoded(encoded.format, encoded.shape, encoded.bits, values, index)


@given(layers())
@settings(max_examples=150, deadline=None)
def test_every_format_gives_the_codes_back_at_the_length_it_claims(case):
    codes, bits = case
    for name, (slots, overhead) in layouts(Mask.of(codes != 0)).items():
        encoded = encode(codes, bits, name)
        assert encoded.index_bits == overhead, name
        assert encoded.total_bits == slots * bits + overhead, name
        read, stored = decode(through_bytes(encoded))
        np.testing.assert_array_equal(read, codes, err_msg=name)
        assert stored[codes != 0].all(), name


@given(layers(), st.integers(0, 2**31))
@settings(max_examples=100, deadline=None)
def test_without_a_code_for_zero_positions_tell_what_is_kept(case, seed):
    codes, bits = case
    present = np.random.default_rng(seed).random(codes.shape) < 0.4
    for name in format_bits(Mask.of(present), WeightCoding(bits, has_zero=False)):
        read, stored = decode(through_bytes(encode(codes * present, bits, name, present)))
        np.testing.assert_array_equal(stored, present, err_msg=name)
        np.testing.assert_array_equal(read, codes * present, err_msg=name)


@pytest.mark.parametrize("width", range(33))
def test_integers_of_any_width_are_packed_into_whole_bytes(width):
    values = np.random.default_rng(width).integers(0, 2**width, 70_001)  # more than are packed at a time
    raw = pack(values, width)
    assert raw.size == -(-width * len(values) // 8)
    np.testing.assert_array_equal(unpack(raw, len(values), width), values)
    text = "".join(f"{value:0{width}b}" for value in values[:64]) if width else ""
    assert np.unpackbits(raw[: 8 * width]).tolist() == [int(bit) for bit in text]
    with pytest.raises(EncodingError, match=f"bytes instead of the {raw.size} of 70001 entries"):
        unpack(np.append(raw, np.uint8(0)), len(values), width)


@pytest.mark.parametrize("zeros", [0, 15, 16, 17, 31, 32, 33, 200])
def test_runs_of_zeros_around_the_counter_of_the_relative_format(zeros):
    codes = np.zeros((1, zeros + 2), np.int64)
    codes[0, [zeros, zeros + 1]] = 3, 1
    encoded = encode(codes, 4, "relative")
    assert encoded.total_bits == (2 + zeros // 16) * 8
    np.testing.assert_array_equal(decode(encoded)[0], codes)


@pytest.mark.parametrize(
    ("density", "bits", "per_weight"),
    [
        (0.5, 4, {"dense": 4, "bitmask": 3.0, "csr8": 6.0, "csr16": 10}),
        (0.1, 4, {"dense": 4, "bitmask": 1.4, "csr8": 1.2, "csr16": 2.0}),
        (0.1, 2, {"dense": 2, "bitmask": 1.2, "csr8": 1.0, "csr16": 1.8}),
        (0.01, 4, {"dense": 4, "bitmask": 1.04, "csr8": 0.12, "csr16": 0.2}),
    ],
)
def test_known_bits_per_weight(density, bits, per_weight):
    present = np.zeros((400, 250), bool)
    present.ravel()[np.random.default_rng(0).permutation(100_000)[: int(density * 100_000)]] = True
    sizes = format_bits(Mask.of(present), WeightCoding(bits=bits))
    for name, expected in per_weight.items():
        # The table leaves the row pointers out.
        pointers = 401 * index_bits(int(present.sum()) + 1) / 1e5 if name.startswith("csr") else 0
        assert sizes[name] / 1e5 - pointers == pytest.approx(expected, abs=0.02), name


@pytest.mark.parametrize(("density", "bits", "bound"), [(0.5, 4, 3.0), (0.1, 4, 0.87), (0.1, 2, 0.67), (0.01, 4, 0.12)])
def test_entropy_bound(density, bits, bound):
    """The published figures give a kept weight all codes, zero among them, which it cannot have."""
    no_zero = density * (bits - math.log2(2**bits - 1))
    per_weight = entropy_bound_bits(1000, round(1000 * density), bits) / 1000
    assert per_weight == pytest.approx(bound - no_zero, abs=0.005)
    assert entropy_bound_bits(10, 10, 4) == 10 * math.log2(15)
    assert entropy_bound_bits(10, 0, 4) == 0


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_bitmask_never_beats_the_entropy_bound(rows, columns, density, seed):
    present = np.random.default_rng(seed).random((rows, columns)) < density
    mask = Mask.of(present)
    assert format_bits(mask, WeightCoding(bits=4))["bitmask"] >= entropy_bound_bits(rows * columns, mask.kept, 4) - 1e-6


def test_two_of_four_and_narrowed_and_blocks():
    two_of_four = np.tile([True, False, True, False], (8, 4))
    assert format_bits(Mask.of(two_of_four), WeightCoding(bits=8))["2:4"] == 64 * (8 + 2)
    narrow = np.zeros((8, 6, 3, 3), bool)
    narrow[:4, :3] = True
    sizes = format_bits(Mask.of(narrow), WeightCoding(bits=8))
    assert sizes["narrowed"] == 4 * 3 * 9 * 8 + 8 + 6
    assert best_format(sizes) == "narrowed"
    blocks = np.kron(np.eye(4, dtype=bool), np.ones((4, 4), bool))
    assert format_bits(Mask.of(blocks), WeightCoding(bits=8))["block4x4"] == 16 + 4 * 16 * 8


def test_a_grid_without_zero_cannot_store_pruned_weights_in_place():
    present = np.random.default_rng(0).random((16, 64)) < 0.3
    without = format_bits(Mask.of(present), WeightCoding(bits=4, has_zero=False))
    assert {"bitmask", "csr", "csr8", "csr16"} <= set(without)
    assert not {"dense", "narrowed", "block4x4"} & set(without)
    full = format_bits(Mask.of(np.ones((16, 64), bool)), WeightCoding(bits=4, has_zero=False))
    assert full["dense"] == 16 * 64 * 4


def test_large_layers_are_summarised_in_chunks():
    present = np.zeros((3, 2**20), bool)
    present[0, 5] = present[2, 7] = True
    places = np.flatnonzero(present.ravel())
    assert Mask.of(present).fillers == places[0] // 16 + (places[1] - places[0] - 1) // 16


def test_wrong_requests_are_named():
    codes = np.full((2, 300), 3)
    with pytest.raises(EncodingError, match="do not fit 1 bits"):
        encode(codes, 1, "dense")
    with pytest.raises(EncodingError, match="cannot number 300 columns"):
        encode(codes, 2, "csr8")
    with pytest.raises(EncodingError, match="not 2:4"):
        encode(codes, 2, "2:4")
    with pytest.raises(EncodingError, match="unknown memory format 'zip'"):
        encode(codes, 2, "zip")
    with pytest.raises(EncodingError, match="dense stores zeros"):
        encode(codes, 2, "dense", np.eye(2, 300) > 0)
    with pytest.raises(EncodingError, match="2 entries of bitmask instead of 600"):
        decode(Encoded("bitmask", (2, 300), 2, np.ones(2, np.uint32), {"bitmask": np.ones(2, np.uint8)}))


def test_side_information():
    coding = WeightCoding(bits=4, scales=16, scale_bits=16, zero_points=16, zero_point_bits=4)
    assert coding.side_bits == 16 * 16 + 16 * 4


@pytest.mark.parametrize(("weights", "kept", "bits"), [(6, 3, 2), (5, 5, 3), (7, 1, 4), (4, 0, 8)])
def test_the_entropy_bound_counts_masks_and_codes(weights, kept, bits):
    """All ways to keep some weights, each with one of the nonzero codes: their number needs no more bits than that."""
    ways = math.comb(weights, kept) * (2**bits - 1) ** kept
    bound = entropy_bound_bits(weights, kept, bits)
    assert math.log2(ways) <= bound + 1e-9
    assert bound <= math.log2(ways) + math.log2(weights + 1)


def test_dense_storage_of_two_bits_at_density_0_8_is_below_the_other_bound():
    """N H + n b would lie above what dense storage takes; three codes a kept weight do not."""
    bound = entropy_bound_bits(1000, 800, 2)
    assert bound < 2000 < bound + 800 * (2 - math.log2(3))
