"""What `snnbench profile` says of chips: by how much a network does not fit, and what would."""

import re
from dataclasses import replace

import pytest

from benchmark.single_network.profile import chip_line
from hardware.chips import Check, ChipFit, chip_fit, chips
from hardware.report import CostReport
from tests.benchmark.factory import make_record


def line(*broken: tuple[str, int, int]) -> str:
    return chip_line(ChipFit("speck", tuple(Check(name, needed, limit, "a source") for name, needed, limit in broken)))


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ([("weight_bits", 32, 8)], "speck: does not fit: weight bits 32 of at most 8; would fit with --bits 8"),
        ([("weight_bits", 32, 8), ("synapses", 9_000, 3_000)], "would fit with --bits 8 --density 0.33"),
        ([("synapses", 9_000, 3)], "synapses 9,000 of at most 3; `compress --fit speck` searches what would"),
        ([("cores", 200, 128)], "cores 200 of at most 128; `compress --fit speck` searches what would"),
        ([("inputs", 99, 16), ("weight_bits", 32, 8)], "weights alone do not mend inputs"),
        ([("real_inputs", 1, 0)], "real inputs 1 of at most 0; weights alone do not mend real inputs"),
    ],
)
def test_what_is_broken_is_told_with_its_size_and_what_would_mend_it(broken, said):
    assert line(*broken).endswith(said)


def as_told(report: CostReport, line: str) -> CostReport:
    """The report of a network with the width of weights, and the share of synapses, that a line names."""
    bits, density = (re.search(rf"--{option} ([0-9.]+)", line) for option in ("bits", "density"))
    layers = [replace(layer, bits=int(bits[1]) if bits else layer.bits) for layer in report.layers]
    share = float(density[1]) if density else 1.0
    return replace(report, layers=tuple(replace(layer, synapses=int(layer.synapses * share)) for layer in layers))


@pytest.mark.parametrize("chip", chips())
def test_what_is_said_to_fit_does(chip):
    report = make_record().answer.cost
    fit = chip_fit(report, chip)
    said = chip_line(fit)
    assert ("does not fit" in said) == (fit.fits is False)
    if "would fit with" in said:
        assert chip_fit(as_told(report, said), chip).fits is not False
