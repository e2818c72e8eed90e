"""The steps in which a layer is computed where nothing is fused."""

from __future__ import annotations

from .calls import Call


def parts_of(call: Call) -> list[Call]:
    """The filtering and the activation of a layer, which other projects run one after the other."""
    x, out = call.shapes["x"], call.output_shape()
    bias = call.shapes.get("bias")
    if call.op in ("bias_act", "upfirdn2d") and len(x) == 4:
        return [call]
    f = call.options.get("resample_filter", call.options.get("f"))
    found = []
    if f is not None and call.weight[2:] == (3, 3):
        if call.options.get("up", 1) == 2:
            # What a transposed convolution makes of [H, W].
            grown = (x[0], out[1], 2 * x[2] + 1, 2 * x[3] + 1)
            found.append(Call("upfirdn2d", call.layer, {"x": grown}, {"f": f, "padding": [1, 1, 1, 1], "gain": 4.0}))
        elif call.options.get("down", 1) == 2:
            found.append(Call("upfirdn2d", call.layer, {"x": x}, {"f": f, "padding": [2, 2, 2, 2]}))
    if bias is not None and call.options.get("act", "linear") != "linear":
        options = {k: v for k, v in call.options.items() if k in ("act", "gain", "clamp")}
        found.append(Call("bias_act", call.layer, {"x": out, "b": bias}, options))
    return found
