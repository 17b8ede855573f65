"""Kept solutions: found again by all that they depend on, by nothing else, and under the names of earlier versions."""

import errno
import os
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from compressors.quantization.grids import Grid
from compressors.second_order import obs, solution_cache
from compressors.second_order.problem import Pattern, Problem
from compressors.second_order.solution_cache import CacheError, SolutionCache
from compressors.second_order.solvers import Exact, FixedOrder
from tests.compressors.second_order.oracles import layer_problem

# A problem whose numbers are the same on every machine, and so are the names of its files.
WEIGHT = torch.arange(8, dtype=torch.float64).view(2, 4)
ONES = torch.ones(2, 1, dtype=torch.float64)
PLAIN = Problem.of(WEIGHT, 2 * torch.eye(4, dtype=torch.float64)[None], ONES[:, 0], damping=0.0)
GRID, MASK = Grid(3, ONES, 4 * ONES), torch.ones(2, 4, dtype=torch.bool)


@pytest.mark.parametrize(
    ("solve", "key"),
    [
        (lambda cache: cache.elimination(PLAIN), "3aaa8d4038624d18ff867e79364b5e43"),
        (lambda cache: cache.elimination(PLAIN, batch=2), "4991eff93c434f77c70f44c79e3bfc82"),
        (lambda cache: cache.elimination(PLAIN, width=4), "5eb347137458d92ebf8371ad58cd7876"),
        (lambda cache: FixedOrder(cache).prune(PLAIN, 3, Pattern()), "ff033569544398e01cafc1b91cb9cbbd"),
        (lambda cache: FixedOrder(cache).prune(PLAIN, 4, Pattern("2:4")), "4fb25c750578d5077a023de6f9b23c57"),
        (lambda cache: Exact(cache).quantize(PLAIN, MASK, WEIGHT, GRID), "49575c6eb885d229591a4b47956bd0e7"),
        (lambda cache: FixedOrder(cache).quantize(PLAIN, MASK, WEIGHT, GRID), "b0b67eb83ab5a45599993ff495ef834a"),
    ],
    ids=["elimination", "batches", "blocks", "fast", "fast 2:4", "obq", "gptq"],
)
def test_solutions_that_users_have_on_disk_are_found_again(tmp_path, solve, key):
    """Another name would cost every user their finished eliminations: a changed result needs another name, though."""
    solve(SolutionCache(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [f"{key}.safetensors"]


@pytest.mark.parametrize("options", [{}, {"batch": 3}, {"width": 4}])
def test_a_kept_elimination_is_the_elimination_to_the_bit(tmp_path, options, monkeypatch):
    problem = layer_problem()
    first = SolutionCache(tmp_path)
    made = first.elimination(problem, **options)
    for name in ("eliminate", "eliminate_blocks"):
        monkeypatch.setattr(obs, name, None)  # from here on nothing can be eliminated
    again = SolutionCache(tmp_path)
    kept = again.elimination(problem, **options)
    assert torch.equal(made.order, kept.order)
    assert torch.equal(made.losses, kept.losses)
    assert again.reused_seconds > first.reused_seconds == 0


@pytest.mark.parametrize("changed", ["weight", "hessian", "batchnorm_factor", "keep", "pattern"])
def test_another_problem_is_another_solution(tmp_path, changed):
    problem, keep, pattern = layer_problem(), 120, "unstructured"
    solver = FixedOrder(SolutionCache(tmp_path))
    solver.prune(problem, keep, Pattern(pattern))
    if changed in ("weight", "hessian", "batchnorm_factor"):
        tensor = getattr(problem, changed).clone()
        tensor.view(-1)[0] += 1e-12  # a single bit
        problem = replace(problem, **{changed: tensor})
    keep, pattern = keep - (changed == "keep"), "2:4" if changed == "pattern" else pattern
    solver.prune(problem, keep, Pattern(pattern))
    assert len(list(tmp_path.iterdir())) == 2


def test_eliminations_are_kept_for_a_run_that_has_no_folder(monkeypatch):
    cache, problem = SolutionCache(None), layer_problem()
    first = cache.elimination(problem)
    monkeypatch.setattr(obs, "eliminate", None)
    assert torch.equal(cache.elimination(problem).order, first.order)


def test_a_damaged_file_is_refused_by_its_name(tmp_path):
    SolutionCache(tmp_path).elimination(PLAIN)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(CacheError, match=f"{path.name} is not a readable solution .*: delete it and run") as caught:
        SolutionCache(tmp_path).elimination(PLAIN)
    assert caught.value.exit_status == 1


def test_what_fails_leaves_no_file(tmp_path):
    singular = replace(PLAIN, hessian=torch.zeros(1, 4, 4, dtype=torch.float64))
    with pytest.raises(obs.HessianError, match="singular"):
        SolutionCache(tmp_path).elimination(singular)
    assert not list(tmp_path.iterdir())


def test_a_changed_bit_is_not_taken_for_the_solution(tmp_path):
    SolutionCache(tmp_path).elimination(PLAIN)
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(CacheError, match=f"{path.name} is not what was written: delete it and run again"):
        SolutionCache(tmp_path).elimination(PLAIN)


def test_solutions_of_earlier_versions_are_read(tmp_path):
    first = SolutionCache(tmp_path).elimination(PLAIN)
    (path,) = tmp_path.iterdir()
    save_file(load_file(path), path, metadata={"seconds": "3.5"})
    again = SolutionCache(tmp_path)
    assert torch.equal(again.elimination(PLAIN).order, first.order)
    assert again.reused_seconds == 3.5


def test_where_nothing_can_be_kept_it_is_said_once_and_the_work_goes_on(tmp_path, monkeypatch, caplog):
    def no_space(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(solution_cache, "save_file", no_space)
    cache, weights = SolutionCache(tmp_path / "cache"), [torch.ones(2), torch.zeros(2)]
    for weight in weights:
        assert torch.equal(cache.get_or_solve("", [weight], lambda weight=weight: {"weight": weight})["weight"], weight)
    [said] = caplog.messages
    assert said.startswith(f"cannot write {tmp_path / 'cache'}: No space left on device; going on without")
    assert list((tmp_path / "cache").iterdir()) == []
