from .networks.classifier import SNNClassifier as SNNClassifier
from .single_network.comparison import Result as Result
from .single_network.comparison import SubjectError as SubjectError
from .single_network.comparison import compress as compress
