"""Energy in closed form, constants with sources, and the published figures they must give."""

import io
import itertools

import pytest
import torch
import yaml
from rich.console import Console
from torch import nn

from hardware import CostReport, WeightCoding, profile
from hardware.chips import chip_fit, chips, kernel_entries, loihi_synapse_bits
from hardware.energy import DEFAULT_PROFILE, Term, energy, load_profile, profile_names
from hardware.registry import UnknownName
from hardware.table import COLUMNS, draw, table_rows, to_csv, to_table
from hardware.units import joules
from tests.hardware.networks import Alone, Spiking, loader, sparsify, spikes


@pytest.fixture(scope="module")
def report():
    torch.manual_seed(0)
    codings = {"body.0": WeightCoding(bits=4, scales=6), "body.2": WeightCoding(bits=8)}
    return profile(sparsify(Spiking()), loader(spikes(6, 3, 2, 8, 8)), codings)


def test_the_literature_pair(report):
    pj = 0.9 * report.ac + 4.6 * report.mac
    assert energy(report, "literature_fp32_45nm").joules == pytest.approx(pj * 1e-12 / 6)
    real = profile(Alone(nn.Linear(4, 3)), loader(torch.rand(5, 4)))
    assert energy(real, "literature_fp32_45nm").joules == pytest.approx(4.6e-12 * 12)


def test_loihi_in_closed_form(report):
    updates = sum(n.updates for n in report.neurons)
    fired = sum(n.spikes for n in report.neurons)
    cost = energy(report, "loihi1_davies")
    assert cost.joules * 6e12 == pytest.approx(23.6 * report.synops + 81 * updates + 1.7 * fired)
    low, high = cost.joules_range
    assert low * 6e12 == pytest.approx(23.6 * report.synops + 52 * updates + 1.7 * fired)
    assert high * 6e12 == pytest.approx(35.5 * report.synops + 81 * updates + 8.9 * fired)


def test_loihi_prices_what_silicon_was_fitted_to():
    """SANA-FE 2.2.9's DVS-Gesture network: its counts, priced by us, give its energy term by term within a tenth."""
    synops, updates, fired, packets = 5_462_418, 18_678 * 128, 38_250, 259_191
    price = {name: term.price(0)[0] * 1e-6 for name, term in load_profile("loihi1").terms.items()}  # uJ
    synapses = synops * price["synaptic_operation"]
    somas = updates * (price["neuron_access"] + price["neuron_update"]) + fired * price["spike"]
    network = packets * price["packet"]
    assert synapses == pytest.approx(193.9, rel=0.01)
    assert somas == pytest.approx(154.3, rel=0.01)
    assert network == pytest.approx(30.6, rel=0.1)  # hops are left out
    assert synapses + somas + network == pytest.approx(378.8, rel=0.01)


def test_loihi_sends_a_packet_to_each_core_that_an_event_reaches():
    report = profile(Alone(nn.Linear(10, 1025, bias=False)), loader(torch.ones(2, 10)))
    terms = energy(report, "loihi1").joules_by("term")
    assert terms["packet"] == pytest.approx(10 * 111e-12)
    assert terms["further_packets"] == pytest.approx(10 * 55.5e-12)
    low, high = energy(report, "loihi1").joules_range
    assert low == pytest.approx(10 * 1025 * 23.6e-12)
    assert high == pytest.approx(10 * 1025 * 35.5e-12 + 10 * 222e-12)


def test_static_power_costs_where_seconds_are_known(report):
    dynamic = energy(report, "speck_measured")
    assert dynamic.dynamic_only == "give the seconds of a step"
    assert dynamic.joules == pytest.approx(25e-12 * report.synops_per_sample)
    timed = energy(report, "speck_measured", seconds_per_step=0.01)
    assert timed.dynamic_only == ""
    assert timed.joules == pytest.approx(dynamic.joules + 0.42e-3 * 0.01 * report.timesteps)
    assert timed.joules_by("layer")["static"] == pytest.approx(0.42e-3 * 0.01 * report.timesteps)
    assert energy(report).dynamic_only == "the profile has no static power"
    assert energy(report, seconds_per_step=0.01).dynamic_only == "the profile has no static power"


def test_a_chip_with_a_step_of_its_own_needs_no_seconds(report):
    own = energy(report, "spinnaker2")
    assert own.dynamic_only == ""
    assert own.joules_by("term")["static"] == pytest.approx(0.15 * 1e-3 * report.timesteps)
    assert own.status == "guess"
    slower = energy(report, "spinnaker2", seconds_per_step=0.1)
    assert slower.joules_by("term")["static"] == pytest.approx(0.15 * 0.1 * report.timesteps)


def test_static_energy_covers_what_was_measured_on_spinnaker2():
    """459 mJ a DVS gesture, of 1 to 6.5 seconds, nearly all of it static."""
    static = load_profile("spinnaker2").static
    assert static.low * 6.5 == pytest.approx(0.459, rel=0.01)
    assert static.high * 1 == pytest.approx(0.459, rel=0.01)


def test_static_energy_stands_in_the_table(report):
    cost = energy(report, "speck_measured", seconds_per_step=0.01)
    rows = {row["layer"]: row for row in table_rows(report, cost)}
    assert rows["static"]["energy_j"] == pytest.approx(0.42e-5 * report.timesteps)
    assert rows["total"]["energy_j"] == pytest.approx(cost.joules)
    console = Console(width=200, file=io.StringIO(), record=True)
    console.print(to_table(report, energy(report, "speck_measured")))
    assert "dynamic only: give the seconds of a step" in " ".join(console.export_text().split())


def test_prices_of_lemaires_line_name_where_it_stands():
    terms = load_profile("lemaire_45nm").terms
    for name in ("weight_read", "potential_read_write", "neuron_update_read_write", "input_read", "output_write"):
        assert all("qualia-plugin-snn" in point.source for point in terms[name].points)


def test_eight_bit_weight_and_sixteen_bit_state_from_32_kb_cost_12_5_pj():
    # facts: 8-bit weight read + 16-bit state read and write at 20 pJ / 64 bit = 40 bits of 0.3125 pJ.
    terms = load_profile(DEFAULT_PROFILE).terms
    size = 32 * 1024 * 8
    pj = 8 * terms["weight_read"].price(size)[0] + 32 * terms["potential_read_write"].price(size)[0]
    assert pj == pytest.approx(12.5, abs=0.05)


def test_prices_between_and_beyond_the_points():
    line = load_profile("lemaire_45nm").terms["weight_read"]
    assert line.price(1e6)[0] == pytest.approx(1.09e-5 * 1e6 + 13.2)
    points = [{"at": a, "pj": p, "source": "x", "status": "citable"} for a, p in [(10, 1.0), (1000, 100.0)]]
    term = Term(count="ac", over="weight_array", points=points)
    assert term.price(100)[0] == pytest.approx(10)
    assert [term.price(size)[0] for size in (1, 10, 1000, 1e9)] == pytest.approx([1, 1, 100, 100])
    assert [term.price(size)[3] for size in (10, 100)] == ["citable", "derived"]


@pytest.mark.parametrize("name", profile_names())
def test_profiles_are_complete_and_ordered(name, report):
    profile_ = load_profile(name)
    for term in profile_.terms.values():
        assert [p.at for p in term.points] == sorted({p.at for p in term.points})
        for point in term.points:
            assert point.source
            pj, low, high = point.range
            assert low <= pj <= high
    cost = energy(report, name)
    low, high = cost.joules_range
    assert 0 < low <= cost.joules <= high
    assert sum(cost.joules_by("term").values()) == pytest.approx(cost.joules)
    assert sum(cost.joules_by("layer").values()) == pytest.approx(cost.joules)
    assert cost.uncertainty


def test_guesses_are_marked(report):
    assert energy(report, "loihi2_like").status == "guess"
    assert "no published" in load_profile("loihi2_like").title
    assert energy(report, "literature_fp32_45nm").status == "citable"


def test_old_records_can_be_priced_anew(report):
    again = CostReport.from_dict(report.to_dict())
    for name in profile_names():
        assert energy(again, name) == energy(report, name)


def test_joules_per_correct_classification(report):
    cost = energy(report)
    assert cost.joules_per_correct(0.5) == 2 * cost.joules
    with pytest.raises(ValueError, match="accuracy is 0"):
        cost.joules_per_correct(0)


def test_own_profiles_and_mistakes_in_them(tmp_path, report):
    own = {"title": "mine", "uncertainty": "none", "state_bits": 8,
           "terms": {"op": {"count": "synops", "points": [{"pj": 2, "source": "me", "status": "guess"}]}}}  # fmt: skip
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(own))
    assert energy(report, str(path)).joules == pytest.approx(2e-12 * report.synops_per_sample)
    own["terms"]["op"]["count"] = "synopses"
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(own))
    with pytest.raises(ValueError, match="unknown counts"):
        energy(report, str(other))
    with pytest.raises(UnknownName, match="unknown energy profile 'seneka': did you mean 'seneca'"):
        energy(report, "seneka")
    with pytest.raises(UnknownName, match="no energy profile at nowhere.yaml"):
        energy(report, "nowhere.yaml")


# ------------------------------------------------------------------ chips


@pytest.mark.parametrize(("bits", "dense", "indexed"), [(8, 9, 19), (4, 5, 15), (2, 3, 13)])
def test_loihi_bits_per_synapse(bits, dense, indexed):
    def per_synapse(density):
        net = Alone(nn.Linear(640, 64, bias=False))
        with torch.no_grad():
            net.layer.weight.fill_(1)[:, int(640 * density) :] = 0
        cost = profile(net, loader(torch.ones(1, 640)), {"layer": WeightCoding(bits=bits)}).layers[0]
        return loihi_synapse_bits(cost) / cost.synapses

    assert per_synapse(1.0) == dense
    assert per_synapse(0.1) == indexed


def test_speck_kernel_memory():
    assert kernel_entries((32, 16, 3, 3)) == 16 * 16 * 32
    assert kernel_entries((33, 16, 3, 3)) == kernel_entries((64, 16, 3, 3)) == 2 * kernel_entries((32, 16, 3, 3))


def test_fit_names_the_limit(report):
    small = chip_fit(report, "loihi1")
    assert small.fits is False  # the classifier is 32-bit float
    assert next(check for check in small.checks if check.name == "weight_bits").ok is False
    narrow = profile(
        sparsify(Spiking()), loader(spikes(6, 3, 2, 8, 8)), {f"body.{i}": WeightCoding(bits=8) for i in (0, 2, 5)}
    )
    fit = chip_fit(narrow, "loihi1")
    assert fit.fits is None  # all known limits are met, one is unknown
    assert fit.cores == 3
    assert chip_fit(narrow, "xylo").binding == "inputs"
    assert chip_fit(narrow, "xylo").fits is False
    with pytest.raises(UnknownName, match="unknown chip 'loihi3': did you mean 'loihi"):
        chip_fit(narrow, "loihi3")


def test_neurons_decide_the_cores_of_a_large_map():
    net = Alone(nn.Conv2d(2, 16, 3, padding=1, bias=False))
    cost = profile(net, loader(spikes(1, 2, 32, 32)), {"layer": WeightCoding(bits=1)})
    assert chip_fit(cost, "loihi1").cores == max(16 * 1024 // 1024, -(-loihi_synapse_bits(cost.layers[0]) // 2**20))
    assert chip_fit(cost, "loihi2").cores == 2


def test_every_limit_has_a_source(report):
    for name, chip in chips().items():
        assert all(limit.source for limit in chip.limits.values())
        assert chip_fit(report, name).to_dict()["chip"] == name


# ------------------------------------------------------------------ tables


def test_table_rows_add_up_to_the_totals(report):
    rows = table_rows(report, energy(report))
    *layers, total = rows
    for column in ("ac", "mac", "dense", "energy_j", "energy_share"):
        assert sum(row[column] or 0 for row in layers) == pytest.approx(total[column])
    assert sum(row["memory_bits"] for row in layers) == total["memory_bits"] == report.total_bits
    assert total["energy_share"] == pytest.approx(1)
    assert all(list(row) == list(COLUMNS) for row in rows)


def test_table_as_csv_in_the_terminal_and_as_a_picture(report, tmp_path):
    cost = energy(report)
    lines = to_csv(table_rows(report, cost)).splitlines()
    assert len(lines) == 2 + len(report.layers) + len(report.neurons) + len(report.others)
    assert lines[0] == ",".join(COLUMNS)
    assert to_table(report, cost).row_count == len(lines) - 1
    console = Console(width=200, file=io.StringIO(), record=True)
    console.print(to_table(report, cost))
    assert joules(cost.joules) in console.export_text()
    draw(report, cost, tmp_path / "layers.png")
    assert (tmp_path / "layers.png").stat().st_size > 5000


def test_network_totals(report):
    assert report.weight_bits == sum(layer.nonzero * layer.bits for layer in report.layers)
    assert report.bound_bits <= sum(min(layer.memory_bits.values()) for layer in report.layers)
    assert report.stored_bits <= min(report.format_bits.values()) + sum(
        layer.side_bits + layer.bias_bits for layer in report.layers
    )
    assert report.total_bits == report.stored_bits + report.state_bits
    assert report.buffer_bits == max(layer.buffer_bits for layer in report.layers) == 128
    assert report.pipeline_steps == report.timesteps + 1
    steps = itertools.chain.from_iterable(layer.synops_per_step for layer in report.layers)
    assert sum(steps) == report.synops
