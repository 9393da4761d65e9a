"""ReplicaSets and ReplicationControllers: so many pods of one template, neither more nor fewer.

``plan`` (pure) says what is missing or too much and what the status is; ``controller`` observes and carries it out.
"""
