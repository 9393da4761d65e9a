"""What the queue tells Prometheus: Kueue's metrics under Kueue's names, and the queue's service-level indicators.

``moments`` counts what happens to workloads, ``standing`` reads how things stand when somebody scrapes, ``indicators``
says how well the queue serves, ``attempts`` how long a cycle takes. All of it is observed from the same caches that the
controllers have: nothing here decides anything, and nothing of it is needed for the queue to work.
"""
