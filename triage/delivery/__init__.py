"""Senders: each takes bytes or files to one destination, once, and says how that went.

`sending.send` chooses by the destination's kind. Whoever calls keeps the list of what is to be
sent and tries again (`outbox`). Nothing is reached but what was configured.
"""
