"""Many children in one program: networks whose architecture is data.

`mixed` is the switch over operations; `any_stack`, with its cells (`any_cell`,
`cell_blocks`, `state_sums`), and `any_blocks`, with its layers (`any_layer`),
are the networks made of it; `networks` brings them to one form. `population`
trains many children side by side, `slots` is their queue, and `evaluator`
answers a search as `evaluation` has it. `extract` gives a child back as a
static network.
"""
