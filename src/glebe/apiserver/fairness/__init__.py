"""Priority and fairness: whose request is served next, and how much anybody may have at once.

The server has one loop, so what is shared is the loop's time. Requests start in turns of the loop, a little work in
each; what does not fit waits in fair queues: first between logical clusters, then between the priority levels of a
cluster, then between the flows of a level (:mod:`.queues`). Levels and flows are said by each cluster's own
FlowSchemas and PriorityLevelConfigurations (:mod:`.schemas`), as upstream's KEP-1040 has them.
"""
