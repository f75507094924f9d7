"""The jail: the sentry confined as if it were already broken into.

What is on is entered before the first untrusted instruction, layer by layer (layers.py), and costs
nothing afterwards. `Jail` (jail.py) is the order of it; the other modules do one thing each.
"""
