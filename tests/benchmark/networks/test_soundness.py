"""A network whose scores depend on the batches is refused before any work, by the name of the module to blame."""

import pytest
import torch
from lightning.pytorch import Trainer
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from benchmark import SNNClassifier, compress
from benchmark.contract.subject import CLASSES, QUIET, RandomEvents, T
from benchmark.networks.errors import NetworkError
from benchmark.networks.soundness import SoundNetwork, require_sound
from compressors import RandomPruning
from hardware import profile


class Unreset(nn.Module):
    """An IF neuron of somebody's own, which nobody resets."""

    def __init__(self):
        super().__init__()
        self.v = 0.0

    def forward(self, x):
        fired = []
        for step in x:
            self.v = self.v + step
            fired.append((self.v >= 1).float())
            self.v = self.v - fired[-1]
        return torch.stack(fired)


class Loop(nn.Module):
    """Steps one at a time, though the neurons inside take their first axis for time."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return torch.stack([self.net(step) for step in x])


class Poisson(nn.Module):
    def forward(self, x):
        return (torch.rand_like(x) < 0.5 * x).float()


class Share(nn.Module):
    """Divides by the number of samples."""

    def forward(self, x):
        return x / x.shape[1]


class Squeezed(nn.Module):
    """Loses the axis of a batch of one."""

    def forward(self, x):
        return x.squeeze()


def network(spike=None, norm=None, steps="m"):
    torch.manual_seed(0)
    parts = (layer.Flatten(), layer.Linear(72, 8), norm or nn.Identity(), spike or neuron.IFNode(), layer.Linear(8, 3))
    net = nn.Sequential(*parts)
    functional.set_step_mode(net, steps)
    with torch.no_grad():
        net[1].weight.mul_(6)
    return net


def mixed_modes():
    net = network()
    net[3].step_mode = "s"
    return net


def time_and_batch_swapped():
    net = network(steps="s")
    net[3].step_mode = "m"
    return Loop(net)


UNSOUND = {
    r"module '3' \(Unreset\) gives another output when the same batch": lambda: network(Unreset()),
    r"module '3' \(IFNode\) is in single-step mode, and is given all 4": mixed_modes,
    r"module 'net.3' \(IFNode\) gives a sample another output .* first axis is time": time_and_batch_swapped,
    r"module '2' \(BatchNorm1d\) .* track_running_stats=True": lambda: network(
        norm=layer.BatchNorm1d(8, track_running_stats=False, step_mode="m")
    ),
    r"module '2' \(Share\) gives a sample another output": lambda: network(norm=Share()),
    r"Sequential returns \[4, 3\] for 1 samples of 3 classes": lambda: nn.Sequential(network(), Squeezed()),
}


@pytest.mark.parametrize("message", UNSOUND)
def test_unsound_networks_are_refused_by_name(message):
    module = SNNClassifier(UNSOUND[message](), classes=CLASSES, timesteps=T)
    with pytest.raises(NetworkError, match=message) as refused:
        require_sound(module, RandomEvents().x[:3])
    assert refused.value.exit_status == 2
    assert "\n" not in str(refused.value)


def loop_in_single_steps():
    return Loop(network(steps="s"))


class Dropping(nn.Module):
    """Dropout that is off in evaluation, and a BatchNorm with running statistics."""

    def __init__(self):
        super().__init__()
        self.net = network(norm=layer.BatchNorm1d(8, step_mode="m"))
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return self.drop(self.net(x))


@pytest.mark.parametrize("make", [network, loop_in_single_steps, Dropping], ids=lambda make: make.__name__)
@pytest.mark.parametrize("samples", [0, 1, 2, T, 12])
def test_sound_networks_pass_as_they_are(make, samples):
    module = SNNClassifier(make(), classes=CLASSES, timesteps=T).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    require_sound(module, RandomEvents().x[:samples])
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(part.training for part in module.modules())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


def test_spikes_that_hang_on_the_last_bit_are_no_reason_to_refuse():
    class Rounding(nn.Module):
        """As an accelerator that adds up in another order for a batch of one."""

        def forward(self, x):
            return x * (1 + 1e-7) if x.shape[1] == 1 and x.dtype == torch.float32 else x

    net = nn.Sequential(layer.Flatten(), Rounding(), neuron.IFNode(v_threshold=1 + 1e-7), layer.Linear(72, 3))
    functional.set_step_mode(net, "m")
    x = RandomEvents().x[:3]
    module = SNNClassifier(net, classes=CLASSES, timesteps=T)
    with torch.no_grad():
        assert not torch.allclose(module(x)[2:], module(x[2:]))
    require_sound(module, x)


def test_random_numbers_are_told_and_not_refused():
    module = SNNClassifier(nn.Sequential(Poisson(), *network()), classes=CLASSES, timesteps=T)
    with pytest.warns(UserWarning, match="draws random numbers when it is evaluated"):
        require_sound(module, RandomEvents().x[:3])


def test_the_fit_draws_the_same_random_numbers_with_it_and_without():
    def drawn(callbacks):
        torch.manual_seed(3)
        module = SNNClassifier(network(), classes=CLASSES, timesteps=T)
        Trainer(max_epochs=0, callbacks=callbacks, **QUIET).fit(module, datamodule=RandomEvents())
        return torch.rand(3)

    assert torch.equal(drawn([SoundNetwork()]), drawn([]))


def test_compress_looks_before_it_works():
    with pytest.raises(NetworkError, match=r"module '3' \(Unreset\)"):
        compress(SNNClassifier(network(Unreset()), classes=CLASSES, timesteps=T), RandomEvents(), RandomPruning(0.5))


def test_the_counter_names_a_neuron_that_took_steps_for_samples():
    module, x = SNNClassifier(mixed_modes(), classes=CLASSES, timesteps=T), RandomEvents().x
    report = profile(module, [(x, torch.zeros(len(x)))])
    assert report.uncounted == ("network.3: neurons of IFNode, in single-step mode with 4 rows for 12 samples",)
    assert report.neurons == ()
