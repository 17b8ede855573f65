"""One trial of a sweep over a method's options: the most accurate network within a memory, on held-out samples."""

from collections.abc import Sequence
from pathlib import Path

from benchmark.questions import build
from benchmark.questions.names import Named
from benchmark.single_network.search import Step, Wish
from benchmark.single_network.searching import Search, Space, search_on
from benchmark.single_network.subject import Source, open_subject
from benchmark.single_network.trials import HELD_OUT, Bench
from benchmark.tracking.runs import Mode, open_run
from benchmark.tracking.sweep import OBJECTIVE


def trial(
    source: Source,
    space: Space,
    memory_bits: float,
    folder: Path,
    *,
    samples: int = HELD_OUT,
    aftercare: Sequence[str] = (),
    mode: Mode | None = None,
) -> Search:
    """Search the most accurate network within a memory, and log every step and the outcome in a W&B run.

    Under an agent the run is the agent's own.

    Args:
        source: the dense network and its data.
        space: the method with the options of the trial, and where they are given the density or the width.
        memory_bits: most stored bits.
        folder: where the run's files go unless ``$WANDB_DIR`` says otherwise.
        samples: held-out samples to judge on, at most.
        aftercare: see :class:`compressors.base.Compressor`.
        mode: as for :func:`benchmark.tracking.runs.log_run`.

    Raises:
        SearchError: nothing that was tried keeps within the memory, or the dense network does.
        Whatever W&B, :func:`benchmark.single_network.searching.search_on` and
            :func:`benchmark.single_network.subject.open_subject` raise.
    """
    (method,) = (build.validated("compressor", Named, named) for named in space.methods)
    bench = Bench(open_subject(source), samples, source.seed, aftercare)
    wish = Wish(max_memory_bits=memory_bits)
    config = {"method": method.name, **method.options, "max_memory_bits": memory_bits, "aftercare": [*aftercare]}
    with open_run(folder, mode, job_type="trial", config=config) as run:

        def told(step: Step) -> None:
            figures = {} if step.trial is None else step.trial.figures()
            run.log({f"tried/{name}": value for name, value in {**step.candidate.budget.limits, **figures}.items()})

        found = search_on(bench, [method], space, wish, told)
        best = found.best
        figures = {} if best.trial is None else best.trial.figures()
        run.log({OBJECTIVE: best.accuracy, **figures, **best.candidate.budget.limits})
    return found
