"""Which errors are a user's to mend, and the exit status each of them ends a command with."""

import sys

FAILED, USAGE, DATA_MISSING = 1, 2, 3

STATUS = {
    ("compressors.registry", "UnknownName"): USAGE,
    ("compressors.registry", "PluginError"): USAGE,
    ("benchmark.suite", "SuiteError"): USAGE,
    ("benchmark.build", "OptionError"): USAGE,
    ("benchmark.checkpoints", "CheckpointError"): USAGE,
    ("benchmark.compare", "CompareError"): USAGE,
    ("benchmark.wandb_sweep", "SweepError"): USAGE,
    ("benchmark.wandb_dashboard", "DashboardError"): FAILED,
    ("compressors.base", "BudgetError"): USAGE,
    ("compressors.layers", "LayerError"): USAGE,
    ("compressors.statistics", "CalibrationError"): USAGE,
    ("benchmark.distributed", "DeviceError"): USAGE,
    ("benchmark.records", "RecordError"): FAILED,
    ("benchmark.records", "StoreError"): FAILED,
    ("benchmark.children", "WorkerError"): FAILED,
    ("benchmark.executors.cluster", "ClusterError"): FAILED,
    ("datamodules.errors", "DataCorrupt"): FAILED,
    ("datamodules.errors", "DataMissing"): DATA_MISSING,
}
"""Exit status of each kind of error, by module and class: looked up among the modules that are loaded already."""


def exit_status(error: Exception) -> int | None:
    """The exit status for an error, or None for one that no user can mend."""
    for (module, name), status in STATUS.items():
        if module in sys.modules and isinstance(error, getattr(sys.modules[module], name)):
            return status
    return None
