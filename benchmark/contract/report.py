"""All checks of one method, and what came of them."""

from collections.abc import Iterator
from dataclasses import dataclass

from rich.table import Table

from benchmark.contract.checks import Check, ContractError, checks_of
from benchmark.contract.subject import Method
from benchmark.runs.dense import quiet


@dataclass(frozen=True)
class Finding:
    """What came of a check; ``error`` is None where the method passed."""

    check: str
    sentence: str
    error: str | None

    @property
    def passed(self) -> bool:
        """Whether the method keeps to the contract here."""
        return self.error is None


def findings(method: Method) -> Iterator[Finding]:
    """Run the checks one after another."""
    for check in checks_of(method.target):
        with quiet():
            error = _error(check, method)
        yield Finding(check.name, check.sentence, error)


def _error(check: Check, method: Method) -> str | None:
    """What is wrong, in one line."""
    try:
        check.run(method)
    except ContractError as error:
        return str(error)
    except Exception as error:  # whatever another package's code raises is what is wrong with it
        message = str(error).partition("\n")[0]
        return f"{type(error).__name__}: {message}" if message else f"{type(error).__name__}, without a message"
    return None


def show(name: str, results: list[Finding]) -> Table:
    """The findings for people."""
    passed = sum(finding.passed for finding in results)
    table = Table(title=f"{name}: {passed} of {len(results)} checks passed", title_justify="left")
    table.add_column("")
    table.add_column("what a compressor keeps to")
    for finding in results:
        text = finding.sentence if finding.error is None else f"{finding.sentence}\n[red]{_plain(finding.error)}[/red]"
        table.add_row("[green]pass[/green]" if finding.passed else "[red]fail[/red]", text)
    return table


def _plain(text: str) -> str:
    """Text that has no markup, whatever brackets it has."""
    return text.replace("[", r"\[")
