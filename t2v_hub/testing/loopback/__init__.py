"""A Hugging Face Hub on the loopback interface, in memory, for the real clients: see `LoopbackHub`.

``server`` is what tests hold. ``wire`` speaks HTTP and applies ``faults``; ``routes`` finds who answers
(``accounts``, ``reading``, ``writing``, ``discussions``) with ``replies``; ``store`` holds users and
repositories, made of ``objects``; ``cards`` and ``facts`` say what the Hub reads out of a card, and
``listing`` pages through repositories.
"""
