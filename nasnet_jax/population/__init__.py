"""Many children in one program: networks whose architecture is data.

`mixed` is the switch over operations, `any_cell` and `any_blocks` the networks
made of it, `population` trains many of them side by side, and `evaluators`
turns decisions into accuracies.
"""
