"""Glebe: a private GPU cloud on Kubernetes.

Rooms by floor (a package imports only lower floors; CI holds the contract):

4  ``cli``                                the ``glebe`` command
3  ``platform``                           which parts run in which process
2  ``queueing``, ``metering``             Kueue-shaped queue; allocation ledger
1  ``apiserver``, ``workloads``, ``node`` the embedded Kubernetes control plane and its nodes
0  ``scheduling``, ``gpu``, ``kube``      pure cores and the Kubernetes vocabulary
"""

__version__ = "0.1.0"
