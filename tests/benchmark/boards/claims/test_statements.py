"""The file of claims, and what is said of one with mistakes."""

from pathlib import Path

import pytest

from benchmark.boards.claims.statements import CLAIMS, Claim, ClaimsError, Comparison, load_claims
from compressors.budget import Budget
from compressors.registry import COMPRESSORS

GOOD = """
- id: a-claim
  method: sbc
  says: It is good.
  who: somebody
  where: somewhere
  read: note
  figure: 5 points
  tests:
    - of: {method: {name: sbc, variant: paper}}
      against: {method: obc}
      at: {data: nmnist, model: conv, budget: {density: 0.1}}
      at_least: 5
"""


@pytest.fixture(scope="module")
def claims() -> tuple[Claim, ...]:
    return load_claims()


def written(folder: Path, text: str) -> Path:
    path = folder / "claims.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_claim_has_a_source_and_either_tests_or_a_reason_why_not(claims: tuple[Claim, ...]) -> None:
    for claim in claims:
        assert claim.who, claim.id
        assert claim.where, claim.id
        assert claim.figure, claim.id
        assert bool(claim.tests) != bool(claim.untestable), claim.id
        assert "verdict" not in claim.model_dump()
    assert len({claim.id for claim in claims}) == len(claims)


def test_every_claim_of_the_papers_of_the_project_is_there(claims: tuple[Claim, ...]) -> None:
    by_method = [claim.method for claim in claims]
    known = [name for name in by_method if name in COMPRESSORS]
    for method in ("sbc", "obc", "qpsnn", "spatiotemporal", "slamp", "lamp", "wanda", "ria", "lottery", "rtn"):
        assert method in known
    assert by_method.count("sbc") > 15


@pytest.mark.parametrize(
    "figure", ["−1.41", "−45.07", "−10.20", "+7.47", "+2.02", "92.40", "79.16", "58.88", "10 to 14"]
)
def test_figures_stand_there_as_they_were_published(figure: str, claims: tuple[Claim, ...]) -> None:
    assert any(figure in claim.figure for claim in claims)


def test_what_holds_for_both_sides_limits_them_and_the_dense_network_has_no_budget() -> None:
    test = Comparison.model_validate(
        {
            "of": {"method": "sbc", "budget": {"density": 0.1}},
            "against": {"method": "identity"},
            "at": {"data": "nmnist", "budget": {"density": 0.5}},
            "at_least": -1,
            "in_part": -2,
        }
    )
    assert test.left.budget == Budget(density=0.1)
    assert test.right.budget is None
    assert test.left.data == test.right.data
    assert test.own("budget")
    assert not test.own("data")


@pytest.mark.parametrize(("measure", "lesser"), [("accuracy", 0.0), ("synops", 1.0), ("fit_seconds", 1.0)])
def test_the_lesser_mark_is_no_effect(measure: str, lesser: float) -> None:
    rows = {"of": {"method": "sbc"}, "against": {"method": "obc"}}
    assert Comparison.model_validate({**rows, "measure": measure, "at_least": 2}).in_part == lesser


@pytest.mark.parametrize(
    ("change", "line", "said"),
    [
        (("method: sbc\n", "method: sbcc\n"), 3, "unknown compressor 'sbcc': did you mean 'sbc'?"),
        (("method: obc", "method: obcc"), 11, "unknown compressor 'obcc': did you mean 'obc'?"),
        (("variant: paper", "varriant: paper"), 10, "has no option 'varriant': did you mean 'variant'?"),
        (("variant: paper", "variant: papper"), 10, "variant is 'papper': did you mean 'paper'"),
        (("data: nmnist", "data: nmnistt"), 12, "unknown data set 'nmnistt'"),
        (("data: nmnist", "data: {name: nmnist, splitt: pooled}"), 12, "has no option 'splitt'"),
        (("model: conv", "model: {name: conv, width: true}"), 12, "width"),
        (("model: conv", "model: convv"), 12, "unknown model 'convv'"),
        (("at_least: 5", "at_least: 5\n      measure: synopses"), 14, "no measure 'synopses'"),
        (("at_least: 5", "at_least: .inf"), 13, "no finite number"),
        (("at_least: 5", "at_least: -5"), 10, "in_part is 0, more than at_least, -5"),
        (("at_least: 5", "at_least: 5\n      in_part: 6"), 10, "in_part is 6"),
        (("at_least: 5", "at_least: 5\n      in_part: 0\n      measure: synops"), 10, "a factor is above 0"),
        (("density: 0.1", "density: 2"), 12, "density"),
        (("{method: obc}", "{}"), 10, "against names no method"),
        (("  read: note", "  read: dream"), 7, "read"),
        (("  who: somebody", "  who: ''"), 5, "who"),
        (("  where: somewhere\n", ""), 2, "where: Field required"),
        (("  figure: 5 points", "  figure: 5 points\n  verdict: met"), 9, "verdict: Extra inputs are not permitted"),
        (("  figure: 5 points", "  figure: 5 points\n  untestable: never"), 2, "give either tests, or in untestable"),
        (("id: a-claim", "id: A Claim"), 2, "id"),
        (("- id: a-claim", "id: a-claim\n-"), 2, ""),
    ],
)
def test_a_mistake_is_told_on_a_line_with_its_place(
    tmp_path: Path, change: tuple[str, str], line: int, said: str
) -> None:
    assert change[0] in GOOD
    path = written(tmp_path, GOOD.replace(*change, 1))
    with pytest.raises(ClaimsError) as caught:
        load_claims(path)
    first = str(caught.value).splitlines()[0]
    assert first.startswith(f"{path}:")
    assert said in first
    assert abs(int(first.removeprefix(f"{path}:").partition(":")[0]) - line) <= 1
    assert caught.value.exit_status == 2


def test_an_id_that_is_there_twice_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClaimsError, match="the id 'a-claim' is there twice"):
        load_claims(written(tmp_path, GOOD + GOOD))


def test_a_claim_of_a_method_that_is_not_here_has_no_tests(tmp_path: Path) -> None:
    body = GOOD[: GOOD.index("  tests")].replace("method: sbc", "method: elsewhere")
    (claim,) = load_claims(written(tmp_path, body + "  untestable: the method is not here\n"))
    assert claim.method == "elsewhere"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClaimsError, match="no.yaml"):
        load_claims(tmp_path / "no.yaml")


def test_the_file_holds_no_verdict() -> None:
    assert "verdict:" not in CLAIMS.read_text(encoding="utf-8")
