"""Encoders of timm, and ours beside those of timm and torchvision, where these are installed.

They are imported in a child: what lets them be imported beside a torch for CPUs stays in a process.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from seq2exp.core.errors import ConfigError
from seq2exp.spatial.images import timm_models
from seq2exp.spatial.images.registry import make_encoder

HAVE = all(importlib.util.find_spec(name) for name in ("timm", "torchvision"))
needs_timm = pytest.mark.skipif(not HAVE, reason="timm and torchvision are not installed")


@pytest.mark.parametrize("error", [ImportError("No module named 'timm'"), RuntimeError("CUDA")])
def test_the_error_names_the_extra(monkeypatch, error):
    def fails(name):
        raise error

    monkeypatch.setattr(timm_models.importlib, "import_module", fails)
    with pytest.raises(ConfigError, match=r"pip install 'seq2exp\[vision\]'"):
        make_encoder("timm:resnet18")


def child(script):
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True,
                          check=False, timeout=600)  # fmt: skip
    assert done.returncode == 0, done.stderr


@needs_timm
def test_models_of_timm_give_places_and_features():
    child("""
import pytest, torch
from seq2exp.core.errors import ConfigError
from seq2exp.spatial.images.registry import make_encoder
x = torch.rand(2, 3, 224, 224)
for name, dim, places in (("resnet18", 512, 49), ("vit_tiny_patch16_224", 192, 196),
                          ("swin_tiny_patch4_window7_224", 768, 49)):
    encoder = make_encoder(f"timm:{name}")
    tokens, pooled = encoder.both(x)
    assert tokens.shape == (2, places, dim) and pooled.shape == (2, dim) == (2, encoder.dim)
    assert encoder.input_px == 224 and encoder.token_dim == dim and not tokens.requires_grad
with pytest.raises(ConfigError, match="a model of timm"):
    make_encoder("timm:hf-hub:someone/model")
""")


@needs_timm
def test_ours_give_the_numbers_of_torchvision_and_timm(tmp_path):
    child(f"""
import torch
from seq2exp.spatial.images.registry import make_encoder
from seq2exp.spatial.images.timm_models import import_timm
timm = import_timm()
import torchvision
path = {str(tmp_path / "w.pt")!r}

def compare(name, net, published):
    state = {{key: torch.rand_like(value) * 0.1 + 0.01 if value.is_floating_point() else value
             for key, value in net.state_dict().items()}}
    net.load_state_dict(state)
    torch.save({{"state_dict": published(net)}}, path)
    encoder = make_encoder(name, path)
    x = torch.rand(2, 3, 64, 64) if "vit" not in name else torch.rand(1, 3, 224, 224)
    mean, std = (torch.tensor(part).view(1, 3, 1, 1) for part in (encoder.mean, encoder.std))
    with torch.no_grad():
        expected = net.eval()((x - mean) / std)
        torch.testing.assert_close(encoder.pool(x), expected, rtol=1e-4, atol=1e-4)

def plain(net):
    return net.state_dict()

for name, head in (("resnet18", "fc"), ("resnet50", "fc"), ("densenet121", "classifier")):
    net = getattr(torchvision.models, name)(weights=None)
    setattr(net, head, torch.nn.Identity())
    compare(name, net, plain)
net = torchvision.models.vit_b_16(weights=None)
net.heads = torch.nn.Identity()
compare("vit_b16", net, plain)
compare("vit_s16_ls", timm.create_model("vit_small_patch16_224", num_classes=0, init_values=1e-5),
        lambda net: {{f"module.{{key}}": value for key, value in net.state_dict().items()}})
""")
