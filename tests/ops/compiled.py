"""Compiles Triton's kernels for an H200 on a machine without one; for a process of its own."""

from __future__ import annotations

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from swin_dense.ops import _window_attention_kernels as kernels
from swin_dense.ops import _window_attention_triton as launching

SIZES = dict.fromkeys(kernels.SIZES, "i32")
FLOATS = dict.fromkeys(
    ["table", "scales", "lse", "bias_grads", "pad_grads", "scale_grads"], "*fp32"
)


def shared_memory_bytes(kernel: str, window: int, head_dim: int) -> int:
    """Compile a kernel for shifted, padded bfloat16 windows; return the shared memory it needs."""
    function = getattr(kernels, kernel)
    block = launching._block(window**2)
    blocks = -(-(window**2) // block)
    constants = dict(
        HEADS=4,
        D=head_dim,
        M=window,
        SHIFT=window // 2,
        REACH=window - 1,
        BLOCK=block,
        BLOCKS=blocks,
        PADDED=True,
        COSINE=False,
        PRECISION="ieee",
    )
    known = SIZES | FLOATS | {"scale": "fp32"} | dict.fromkeys(constants, "constexpr")
    signature = {name: known.get(name, "*bf16") for name in function.arg_names}
    pointers = [(at,) for at, kind in enumerate(signature.values()) if kind.startswith("*")]
    source = ASTSource(
        function,
        signature,
        constexprs=constants,
        attrs={at: [["tt.divisibility", 16]] for at in pointers},
    )
    stages = launching.STAGES_ONE_BLOCK if blocks == 1 else launching.STAGES_MORE
    compiled = triton.compile(
        source, target=GPUTarget("cuda", 90, 32), options=dict(num_warps=4, num_stages=stages)
    )
    assert compiled.asm["cubin"]
    return int(compiled.metadata.shared)
