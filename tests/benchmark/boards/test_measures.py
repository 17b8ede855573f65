"""What is measured of runs, over seeds."""

from typing import Any

from benchmark.boards.standings import standings
from benchmark.records import RunRecord, SpikeAccount
from tests.benchmark.factory import make_record


def test_what_became_of_spikes_is_a_measure_where_every_seed_knows_it() -> None:
    def layer(name: str, mismatch: float | None, dead: int) -> dict[str, Any]:
        known = {"mismatch": mismatch, "van_rossum": mismatch, "earth_mover": 0.25}
        return {"name": name, "neurons": 10, "dead": dead, "saturated": 0, **known,
                "lowest_potential": -1.0, "highest_potential": 2.5}  # fmt: skip

    def record(method: str, seed: int, mismatch: float | None) -> RunRecord:
        layers = (layer("2", 0.25, 1), layer("5", mismatch, 4))
        return make_record(method, 0.1, seed, spikes=SpikeAccount(samples=18, layers=layers))

    board = standings(
        [
            *(record("sbc", seed, 0.75) for seed in (0, 1)),
            *(record("obc", seed, 0.75 if seed else None) for seed in (0, 1)),
            make_record("qpsnn", 0.1, 0),
        ]
    )
    rows = {row.method: row.measured for row in board.tables[0].rows}
    assert rows["sbc"]["spike_mismatch"].mean == rows["sbc"]["van_rossum"].mean == 0.5
    assert rows["sbc"]["dead_neurons"].mean == 0.25
    assert "spike_mismatch" not in rows["obc"]
    assert rows["obc"]["earth_mover"].mean == 0.25
    assert not rows["qpsnn"].keys() & {"spike_mismatch", "dead_neurons"}
