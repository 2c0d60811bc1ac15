"""``python gguf_to_safetensors.py GGUF FOLDER``: SmolLM2-135M's weights in bfloat16 for vLLM.

Needs gguf, torch and safetensors only, unlike transformers' own conversion.
"""

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFReader, dequantize
from safetensors.torch import save_file

HEADS, KEY_VALUE_HEADS = 9, 3
_TOP = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
_LAYER = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


def _unpermuted(weights: Any, heads: int) -> Any:
    """GGUF interleaves the halves of each head for its own rotary embedding; undo that."""
    rows, columns = weights.shape
    pairs = weights.reshape(heads, rows // heads // 2, 2, columns)
    return pairs.swapaxes(2, 1).reshape(rows, columns)


def convert(source: Path) -> dict[str, torch.Tensor]:
    """The tensors of a GGUF file under the names that vLLM loads."""
    tensors: dict[str, torch.Tensor] = {}
    for tensor in GGUFReader(source).tensors:
        weights: Any = dequantize(tensor.data, tensor.tensor_type)
        name = _TOP.get(tensor.name)
        if name is None:
            match = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", tensor.name)
            if match is None:
                continue
            name = f"model.layers.{match[1]}.{_LAYER[match[2]]}.weight"
            if match[2] == "attn_q":
                weights = _unpermuted(weights, HEADS)
            elif match[2] == "attn_k":
                weights = _unpermuted(weights, KEY_VALUE_HEADS)
        values = np.ascontiguousarray(weights, dtype=np.float32)
        tensors[name] = torch.from_numpy(values).to(torch.bfloat16)
    return tensors


if __name__ == "__main__":
    target = Path(sys.argv[2]) / "model.safetensors"
    save_file(convert(Path(sys.argv[1])), target, metadata={"format": "pt"})
