"""HorizontalPodAutoscalers.

``calculator`` and ``behavior`` are the pure arithmetic, ``readings`` asks the metrics APIs, ``metrics`` puts the two
together for one metric, ``controller`` observes and writes.
"""
