"""Whose a record is, and whether others can make it again."""

from collections.abc import Mapping

from benchmark.catalog import DATA, MODELS
from benchmark.networks.weights.published import PUBLISHED
from benchmark.questions.names import Named
from benchmark.records import PACKAGES, RunRecord
from compressors.registry import COMPRESSORS, OWN
from hardware.registry import Registry

REPORTED = "reported by its author"


def obstacles(record: RunRecord) -> list[str]:
    """What others lack who want to make a record again, one line each; nothing where they have all.

    That is a method, network or data set of no public code, weights in a file, and changes that no revision has.
    """
    question = record.question
    kinds: tuple[tuple[Registry, Named], ...] = (
        (COMPRESSORS, question.compressor),
        (MODELS, question.model),
        (DATA, question.data),
    )
    public = record.submission is not None and bool(record.submission.code)
    lacking = [
        f"the {registry.kind} {named.name} is not snnbench's, and its code has no address"
        for registry, named in kinds
        if not (public or _is_own(registry, named.name))
    ]
    if question.model.checkpoint is not None and question.model.checkpoint not in PUBLISHED:
        lacking.append(f"the weights of {question.model.label} are in a file of its author's")
    git = record.environment.get("git")
    if not public and (not isinstance(git, str) or git.endswith("+changes")):
        lacking.append("it was made by code with changes that are in no revision")
    return lacking


def is_report(record: RunRecord) -> bool:
    """Whether a record is *reported by its author*: somebody submitted it, and others cannot make it again."""
    return record.submission is not None and bool(obstacles(record))


def origin(record: RunRecord) -> dict[str, str]:
    """For people: whose hardware and whose code a submitted record is of; nothing for the project's own."""
    submission = record.submission
    if submission is None:
        return {}
    facts = {"submitted by": submission.by, "on hardware": submission.hardware}
    if submission.code:
        facts["code of others"] = submission.code
    if plugins(record):
        facts["plug-ins"] = ", ".join(f"{name} {version}" for name, version in plugins(record).items())
    lacking = obstacles(record)
    facts["to be made again"] = f"{REPORTED}: {'; '.join(lacking)}" if lacking else "by anybody"
    return facts


def plugins(record: RunRecord) -> Mapping[str, str]:
    """Versions of the packages that the method, the network or the data set of a record come from, snnbench aside."""
    listed = record.environment.get("packages")
    packages = listed if isinstance(listed, Mapping) else {}
    return {str(name): str(version) for name, version in packages.items() if name not in PACKAGES}


def _is_own(registry: Registry, name: str) -> bool:
    return name in registry and registry[name].origin == OWN
