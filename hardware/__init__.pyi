from .callback import HardwareCost as HardwareCost
from .memory import WeightCoding as WeightCoding
from .profiling import profile as profile
from .report import CostReport as CostReport
from .report import LayerCost as LayerCost
from .report import NeuronCost as NeuronCost
from .report import OtherCost as OtherCost
