"""The Common Expression Language as Kubernetes speaks it: parser, type checker, evaluator with a budget, libraries.

Expressions come from tenants and run in the server's own process, so that what an expression may cost is a security
boundary. An evaluator of our own counts every step against a budget (:mod:`.budget`) and never starts an operation
whose size it has not counted; libraries in other languages do not stop half way.
"""
