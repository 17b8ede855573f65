"""Which arithmetic a device has of its own."""

import torch


def computes_bfloat16(device: str | torch.device) -> bool:
    """Whether a device multiplies bfloat16 as it is; others emulate it, which takes longer than float32."""
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
