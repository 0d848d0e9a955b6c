"""The ray caster again, compiled: what `scenes.render` computes, much faster on a CPU.

Only `fast.front` is for others; it imports the kernels, which need numba.
"""
